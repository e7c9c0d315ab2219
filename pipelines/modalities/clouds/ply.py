"""PLY files, the polygon file format of Stanford: their vertices, of ascii or binary ones of either byte order.

A file is a header in text, `ply` to `end_header`, which names elements, their number and their properties, in the order
in which their values follow. Faces and other elements are skipped.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NAMES = {  # of types, the old one and that which tells its bits, and NumPy's
    ("char", "int8"): "i1",
    ("uchar", "uint8"): "u1",
    ("short", "int16"): "i2",
    ("ushort", "uint16"): "u2",
    ("int", "int32"): "i4",
    ("uint", "uint32"): "u4",
    ("float", "float32"): "f4",
    ("double", "float64"): "f8",
}
TYPES = {name: kind for names, kind in NAMES.items() for name in names}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
LONGEST = 2**16  # bytes of a header
END = b"end_header"


class PlyElement(NamedTuple):
    """A kind of things in a file. number: of them. properties: name and type of each; a type of None is a list's."""

    name: str
    number: int
    properties: list[tuple[str, str | None]]


class PlyHeader(NamedTuple):
    """The contents of a header. order: of bytes; "" of text. start: of the values, in bytes."""

    order: str
    elements: list[PlyElement]
    start: int

    @property
    def points(self) -> int:
        """Return the number of vertices. Raises ValueError without any."""
        numbers = [element.number for element in self.elements if element.name == "vertex"]
        if len(numbers) != 1 or numbers[0] < 1:
            raise ValueError("it has no vertices")
        return numbers[0]


def header(data: bytes) -> PlyHeader:
    """Return what the header of a file says. Raises ValueError for none."""
    begin = data[:LONGEST]
    end = begin.find(END)
    if not begin.startswith((b"ply\n", b"ply\r")) or end < 0:
        raise ValueError("no header of a PLY file")
    rest = begin[end + len(END) :]
    start = end + len(END) + (2 if rest.startswith(b"\r\n") else 1)
    order, elements = None, list[PlyElement]()
    for line in begin[:end].decode("ascii", "replace").splitlines()[1:]:
        match line.split():
            case ["format", name, "1.0"] if name in ORDERS:
                order = ORDERS[name]
            case ["element", name, number] if number.isdecimal():
                elements.append(PlyElement(name, int(number), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append((name, None))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append((name, TYPES[kind]))
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"a header with {line!r}")
    if order is None:
        raise ValueError("a header without format")
    return PlyHeader(order, elements, start)


def vertices(data: bytes) -> NDArray[np.void]:
    """-> (N,), the properties of every vertex, by name. Raises ValueError where they are not all there."""
    head = header(data)
    start = head.start
    for element in head.elements:
        if any(kind is None for _, kind in element.properties):
            raise ValueError(f"lists of {element.name} before the end of the vertices")
        row = np.dtype([(name, head.order + kind) for name, kind in element.properties if kind])
        if element.name == "vertex":
            number = head.points
            return _rows(data[start:], row, number) if head.order else _lines(data[start:], row, number)
        start += _size(data, start, row, element.number, is_text=not head.order)
    raise ValueError("it has no vertices")


def _rows(data: bytes, row: np.dtype[np.void], number: int) -> NDArray[np.void]:
    if len(data) < number * row.itemsize:
        raise ValueError(f"{len(data)} bytes of the {number * row.itemsize} of its vertices")
    return np.frombuffer(data, row, number)


def _lines(data: bytes, row: np.dtype[np.void], number: int) -> NDArray[np.void]:
    names = row.names or ()
    expected = number * len(names)
    words = data.split(None, expected)[:expected]
    if len(words) < expected:
        raise ValueError(f"{len(words)} of the {expected} values of its vertices")
    values = np.array(words, np.float64).reshape(number, -1)
    table = np.empty(number, row)
    for column, name in enumerate(names):
        table[name] = values[:, column]
    return table


def _size(data: bytes, start: int, row: np.dtype[np.void], number: int, *, is_text: bool) -> int:
    """Return the bytes of elements before the vertices."""
    if not is_text:
        return number * row.itemsize
    lines = data[start:].split(b"\n", number)[:number]
    return sum(len(line) + 1 for line in lines)
