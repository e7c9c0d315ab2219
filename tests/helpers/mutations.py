"""Malformed input, drawn by a seed: YAML as text and as trees, overrides, files as bytes and as records.

It is harmless: no file runs code or breaks its reader.
"""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import yaml


class Case(NamedTuple):
    """A malformed spec. what: the kind of mutation."""

    what: str
    text: bytes
    overrides: tuple[str, ...] = ()


class Raw(str):
    """YAML source, which is not quoted."""


class Pairs(list[tuple[str, Any]]):
    """A mapping that may have a key twice."""


_words = str.split
TEXTS = ["\0", "a\0b", "\ud800", "\udcff", "\n", "", " ", "a" * 5000, *_words("x é - .. / null 1 1e-3 a.b")]
NUMBERS = _words("0 -1 1 2 -0.0 0.5 1.0 1e-320 1e308 1e999 -.inf .inf .nan 010 0x1F 0o17")
NUMBERS += map(str, (2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 10**400 - 1, "9" * 5000, "-" + "9" * 5000))
SHAPES = _words("null ~ true false [] {} [null] [[]] [1] 2024-01-02 12:30")
SHAPES += _words("[1, 1.0]; [{a: 1}]; {a: 1}; {a: {b: 1}}; {steps: 1}; {search: auto}; {search: null}", "; ")
SHAPES += _words("{search: [1, 2]}; {search: {low: 1, high: 2}}; {search: {low: 0, high: .nan}}", "; ")
SHAPES += _words("{search: {low: -.inf, high: .inf}}; {search: [[1], {a: 1}]}; {search: [1, 1.0]}", "; ")
YAMLS = _words("&a [*a]; *nowhere; !!int five; !!python/tuple [1]; {<<: {a: 1}}; {? [a] : b}; {null: 1}; {'': 1}", "; ")
YAMLS += ["[" * 60 + "]" * 60, "[" * 2000 + "]" * 2000, "{a: " * 700 + "1" + "}" * 700, *'@%`|["']
TENS = [f"&{b} [{', '.join([a] * 10)}]" for a, b in zip(("1", "*a", "*b", "*c", "*d"), "abcde", strict=True)]
YAMLS += [f"[{', '.join(TENS)}]"]  # 111,110 values
PATHS = ["loop.yaml", "fifo", "binary", "empty.yaml", "mae.yaml", "../photos/mae.yaml", "mae.yaml/x", "nowhere.yaml"]
PATHS += ["/dev/null", ".", "..", "~", "a\0b", "\ud800", "x" * 300, "file:///x", "~no.body/x", "s3://[x", ""]
VALUES = [*map(json.dumps, TEXTS), *NUMBERS, *SHAPES, *YAMLS, *map(json.dumps, PATHS)]
BYTES = [b"\0", b"\xff", b"\xef\xbb\xbf", b"\t", b"\r", b"\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80"]
BYTES += b"---\n,...\n,%YAML 9.9\n,- ,: ,? ,&a ,*a,<<: *a,!!x ,{,},[,],\",',#".split(b",")
KEYS = ["", "\0", "\ud800", "x" * 3000, *_words("x extends studies search ablate grid expected name method seed seeds")]
KEYS += _words("hyper published question hyper.x . a..b 1 null << train.duration model_config")


def specs(text: str, seed: int, knobs: Sequence[str]) -> Case:
    """Return one or two mutations of a spec, a sweep, or overrides of it. knobs: paths that it may lack."""
    draw = Random(seed)
    kind = draw.choice(("text", "tree", "tree", "tree", "override"))
    if kind == "text":
        return Case("text", torn(text.encode(), draw))
    tree = _pairs(yaml.safe_load(text))
    if kind == "override":
        paths = [*(".".join(path) for path in _paths(tree)), *draw.sample(knobs, 10)]
        return Case("override", text.encode(), tuple(_override(paths, draw) for _ in range(draw.choice((1, 1, 2)))))
    for _ in range(draw.choice((1, 1, 2))):
        _bent(tree, draw)
    return Case("tree", _flow(tree).encode())


def records(text: str, seed: int) -> bytes:
    """Return one mutation of a JSON file."""
    draw = Random(seed)
    if draw.random() < 0.4:
        return torn(text.encode(), draw)
    tree = _pairs(json.loads(text))
    _bent(tree, draw)
    return _flow(tree).encode()


def tables(table: pa.Table, seed: int) -> pa.Table:
    """Return a table with a column lost, doubled, renamed, of another type, or with another value in it."""
    draw = Random(seed)
    at = draw.randrange(table.num_columns)
    name, values = table.column_names[at], table.column(at).to_pylist()
    match draw.randrange(5):
        case 0:
            return table.drop_columns([name])
        case 1:
            return table.append_column(draw.choice([name, "x"]), table.column(at))
        case 2:
            return table.rename_columns([column + "x" * (column == name) for column in table.column_names])
        case 3:
            return table.set_column(at, name, pa.array(draw.choice([list(map(str, values)), [None] * len(values)])))
    odd = [None, *((0, -1, 1, 2**62) if isinstance(values[0], int) else ("", "..", "/", "a\0b", "x" * 999))]
    values[draw.randrange(len(values))] = draw.choice(odd)
    return table.set_column(at, name, pa.array(values, table.schema.field(at).type))


def torn(data: bytes, draw: Random, pieces: Sequence[bytes] = BYTES) -> bytes:
    """Return data with bytes or lines lost, doubled, moved or changed."""
    at, to = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    lines = data.splitlines(keepends=True)
    number = draw.randrange(len(lines)) if lines else 0
    match draw.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[to:]
        case 2:
            return data[:at] + draw.choice(pieces) + data[at:]
        case 3:
            return data[:at] + draw.choice(pieces) + data[at + 1 :]
        case 4:
            return b"".join([*lines[:number], *lines[number : number + 1] * 2, *lines[number + 1 :]])
        case 5:
            return b"".join([*lines[:number], draw.choice((b" ", b"  ", b"\t")), *lines[number:]])
    return b"".join([*lines[:number], *lines[number + 1 :]])


def _bent(tree: Pairs, draw: Random) -> None:
    """Change one key or value of a tree in place."""
    holder, at = draw.choice(list(_places(tree)))
    if isinstance(holder, Pairs):
        key, value = holder[at]
        match draw.randrange(8):
            case 0:
                del holder[at]
            case 1:
                holder.append((key, value))
            case 2:
                holder[at] = (draw.choice([*KEYS, key[:-1], key + "x", key.upper()]), value)
            case 3:
                holder.append((draw.choice(KEYS), Raw(draw.choice(VALUES))))
            case _ if key == "extends":
                holder[at] = (key, draw.choice(PATHS))
            case _:
                holder[at] = (key, Raw(draw.choice(VALUES)))
    elif draw.random() < 0.2:
        del holder[at]
    else:
        holder[at] = Raw(draw.choice(VALUES))


def _override(paths: Sequence[str], draw: Random) -> str:
    path, value = draw.choice(paths), draw.choice([*VALUES, *TEXTS])
    odd = [
        f"{draw.choice(KEYS)}={value}",
        f"{path}.{draw.choice(KEYS)}={value}",
        path,
        f"{path} = {value}",
        f"={value}",
        "",
    ]
    return draw.choice([f"{path}={value}"] * len(odd) + odd)


def _pairs(tree: Any) -> Any:
    if isinstance(tree, dict):
        return Pairs((str(key), _pairs(value)) for key, value in tree.items())
    return [_pairs(item) for item in tree] if isinstance(tree, list) else tree


def _places(tree: Any) -> Iterator[tuple[Any, int]]:
    """Yield every (mapping or list, place in it)."""
    if isinstance(tree, list):
        for at, item in enumerate(tree):
            yield tree, at
            yield from _places(item[1] if isinstance(tree, Pairs) else item)


def _paths(tree: Pairs, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree:
        yield (*above, key)
        if isinstance(value, Pairs):
            yield from _paths(value, (*above, key))


def _flow(tree: Any) -> str:
    if isinstance(tree, Raw):
        return tree
    if isinstance(tree, Pairs):
        return "{" + ",\n ".join(f"{json.dumps(key)}: {_flow(value)}" for key, value in tree) + "}"
    return "[" + ", ".join(map(_flow, tree)) + "]" if isinstance(tree, list) else json.dumps(tree)
