"""Labels as people and tools write them, from the bytes of a member to the numbers of a data set."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.labels import LabelError, number, read
from selfsup.pipelines.data.manifest import Manifest


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"3", "3"),
        (b" 3\r\n", "3"),
        (b"+3", "3"),
        (b"3.0\n", "3"),
        (b"3.", "3"),
        (b"007", "007"),
        (b"\xef\xbb\xbf3", "3"),
        (b"\xef\xbb\xbfcat", "cat"),
        ("3\r\n".encode("utf-16"), "3"),
        ("\ufeffcat".encode("utf-16-be"), "cat"),
        (b"[3]", "3"),
        (b"np.int64(3)", "3"),
        (b"tensor(3)", "3"),
        (b"tensor([3], dtype=torch.int32)", "3"),
        (b"np.float32(3.0)", "3"),
        (b'"polar bear"', "polar bear"),
        (b"polar bear", "polar bear"),
        (b"n01440764", "n01440764"),
        (b"class3", "class3"),
        (b"2019-01", "2019-01"),
        (b"caf\xe9", "caf\u00e9"),
        (b"caf\xe8", "caf\u00e8"),
        (b"9" * 200, "9" * 200),
        (b"", None),
        (b"\n", None),
        (b"-1", None),
        (b"-1.0", None),
        (b"-100", None),
        (b"None", "None"),  # unless a class is called so; see below
    ],
)
def test_a_label_is_a_number_or_a_name(data: bytes, label: str | None) -> None:
    for kind in ("cls", "class", "label"):
        assert read(kind, data) == label


@pytest.mark.parametrize(
    "data", [b"0.37", b"1e3", b".5", b"3\n4", b"\x93NUMPY\x01\x00v", b"\x89PNG\r\n\x1a\n\0", b"x" * 256]
)
def test_what_is_neither_is_unreadable(data: bytes) -> None:
    with pytest.raises(LabelError):
        read("cls", data)


@pytest.mark.parametrize(
    ("told", "label"),
    [
        ({"label": 3}, "3"),
        ({"label": 3.0}, "3"),
        ({"label": [3]}, "3"),
        ({"label": "3"}, "3"),
        ({"label": " cat "}, "cat"),
        ({"cls": 3, "caption": "2019"}, "3"),
        ({"class": 3}, "3"),
        ({"label": None, "cls": 3}, "3"),
        ({"label": float("nan"), "class": 3}, "3"),
        ({"label": "", "cls": 3}, "3"),
        ({"label": -100}, None),
        ({"label": float("nan")}, None),
        ({"label": []}, None),
        ({"caption": "3"}, None),
        (3, "3"),
        (10**30, "1" + "0" * 30),
        (None, None),
    ],
)
def test_a_label_in_json(told: object, label: str | None) -> None:
    assert read("json", b"\xef\xbb\xbf" + json.dumps(told).encode()) == label


@pytest.mark.parametrize("told", [0.5, True, [0, 1], {"a": 1}, float("inf")])
def test_what_is_no_label_in_json(told: object) -> None:
    with pytest.raises(LabelError):
        read("json", json.dumps({"label": told}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"9" * 5000, b"\xff\xfe"])
def test_json_that_is_none_has_no_label(data: bytes) -> None:
    assert read("json", data) is None


def test_a_number_is_no_caption() -> None:
    told = [b" 7\n", b"7.0", b"-1", b"", b"a cat", b"7 cats", b"None", b"7.5", b"two\nlines"]
    assert [number(data) for data in told] == ["7", "7", "", "", None, None, None, None, None]


def indexed(folder: Path, labels: Sequence[str | None], kind: str = "cls", **more: str) -> tuple[Manifest, list[str]]:
    """A manifest of one sample a label, and what was remarked. more: another member of each sample."""
    sink = io.BytesIO()
    Image.new("RGB", (4, 4)).save(sink, "PNG")
    with tarfile.open(folder / "0.tar", "w") as tar:
        for place, label in enumerate(labels):
            members = {"png": sink.getvalue(), kind: None if label is None else label.encode()}
            for name, data in (members | {name: text.encode() for name, text in more.items()}).items():
                if data is not None:
                    info = tarfile.TarInfo(f"{place}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    said: list[str] = []
    return shards.index(str(folder), remark=said.append), said


def numbers(told: Manifest) -> list[int]:
    return list(told.rows.take(np.arange(told.num_samples))["label"])


@pytest.mark.parametrize("kind", ["cls", "class", "label", "index", "txt"])
def test_numbers_are_those_of_the_classes(tmp_path: Path, kind: str) -> None:
    told, said = indexed(tmp_path, ["0\n", "2.0", "1", "-1", "2"], kind)
    assert (numbers(told), told.classes, told.num_labelled, said) == ([0, 2, 1, -1, 2], ("0", "1", "2"), 4, [])


@pytest.mark.parametrize(
    "captions",
    [
        ["a cat", "2019", "a dog", "two dogs", "7"],  # numbers by chance
        ["2019", "2020", "2019", "7", "7"],  # too large for five samples
        ["5551234567"] * 5,
        ["9" * 5000] * 5,
        ["0", "1", "2", "3", "4"],  # a running number
        ["0", "1", None, "1", "0"],  # not every sample's
    ],
)
@pytest.mark.parametrize("kind", ["txt", "index"])
def test_captions_are_no_labels(tmp_path: Path, captions: list[str | None], kind: str) -> None:
    told, said = indexed(tmp_path, captions, kind)
    assert (told.classes, told.num_labelled, numbers(told)) == ((), 0, [-1] * 5)
    assert any(
        "no labels; they are read from .cls" in text and f"hold {', '.join(sorted([kind, 'png']))}" in text
        for text in said
    )
    doubtful = [text for text in said if f"numbers in .{kind}, such as" in text]
    assert len(doubtful) == (captions[0] in ("2019", "5551234567") or captions == ["0", "1", "2", "3", "4"])


def test_names_of_classes_make_numbers_labels(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("".join(f"class {number}\n" for number in range(1000)))
    told, said = indexed(tmp_path, ["999", "7", "7"], "txt")
    assert (numbers(told), len(told.classes), said) == ([999, 7, 7], 1000, [])


def test_captions_do_not_matter_beside_labels(tmp_path: Path) -> None:
    told, said = indexed(tmp_path, ["1", None, "0"], txt="1", index="0")
    assert (numbers(told), said) == ([1, -1, 0], [])


@pytest.mark.parametrize("word", ["None", "nan", "NaN", "null"])
def test_words_for_nothing_are_no_label_unless_a_class_is_called_so(tmp_path: Path, word: str) -> None:
    told, said = indexed(tmp_path, ["1", word, "0"])
    assert (numbers(told), told.classes) == ([1, -1, 0], ("0", "1"))
    assert [f"{word!r} counts as no label" in text for text in said] == [True]
    (tmp_path / "classnames.txt").write_text(f"cat\n{word}\n")
    told, said = indexed(tmp_path, ["cat", word, "cat"])
    assert (numbers(told), said) == ([0, 1, 0], [])


def test_what_cannot_be_read_is_counted_and_shown(tmp_path: Path) -> None:
    told, said = indexed(tmp_path, ["1", "0.5", "0", "3\n4"])
    assert numbers(told) == [1, -1, 0, -1]
    assert [text.partition(": ")[2] for text in said] == [
        "2 labels cannot be read and count as none, such as 0.tar: 1.cls: '0.5'"
    ]


def test_numbers_too_great_for_classes_are_their_names(tmp_path: Path) -> None:
    told, _ = indexed(tmp_path, ["1500123", "48460", "9" * 5000, "48460"])
    assert (numbers(told), told.classes) == ([1, 0, -1, 0], ("48460", "1500123"))


def test_numbers_among_names_are_names(tmp_path: Path) -> None:
    told, said = indexed(tmp_path, ["10", "cat", "9"])
    assert (numbers(told), told.classes) == ([1, 2, 0], ("9", "10", "cat"))
    assert "partly numbers, partly names such as 'cat'" in said[0]


def test_the_names_of_classes_as_windows_writes_them(tmp_path: Path) -> None:
    for text in ("\ufeffcat\r\ndog\r\n\r\n", "cat\ndog\n\n\n", "cat \ndog"):
        (tmp_path / "classnames.txt").write_bytes(text.encode())
        told, _ = indexed(tmp_path, ["dog", "cat"])
        assert (numbers(told), told.classes) == ([1, 0], ("cat", "dog"))
    (tmp_path / "classnames.txt").write_bytes("cat\r\ndog\r\n".encode("utf-16"))
    assert indexed(tmp_path, ["dog", "cat"])[0].classes == ("cat", "dog")


def test_names_that_are_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("001\n002\n003\n")
    assert numbers(indexed(tmp_path, ["002", "001"])[0]) == [1, 0]


def test_a_name_of_two_classes_is_refused_where_a_label_says_it(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("crane\nship\ncrane\n")
    assert numbers(indexed(tmp_path, ["2", "0"])[0]) == [2, 0]
    assert numbers(indexed(tmp_path, ["ship", None])[0]) == [1, -1]
    with pytest.raises(DataError, match="label 'crane' is the name of two classes"):
        indexed(tmp_path, ["crane"])
