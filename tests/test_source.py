"""YAML to values and places; files over files; the text of a mistake."""

import math
import os
from pathlib import Path
from typing import Any

import pytest

from selfsup.errors import SpecError
from selfsup.layers import Layers, find, plain
from selfsup.source import Mark, Problem, Source, refusal


def value(text: str) -> Any:
    source = Source(f"x: {text}", "f.yaml")
    root = source.read()
    assert source.problems == []
    return plain(root)["x"]


def mistakes(text: str) -> list[str]:
    source = Source(text, "f.yaml")
    source.read()
    return [str(problem) for problem in source.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("0", 0),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("True", "True"),
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("12:30:00", "12:30:00"),
        ("2024-01-02", "2024-01-02"),
        ("08-01", "08-01"),
        ("1_000", "1_000"),
        ("1e", "1e"),
        ("'010'", "010"),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("<<", "<<"),
        ("[1, [a, 2.0]]", (1, ("a", 2.0))),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars_of_yaml_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(value(".nan"))


def test_aliases_repeat_a_value() -> None:
    assert plain(Source("a: &here {b: 1}\nc: *here", "f.yaml").read()) == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("text", ["010", "-007", "00", "01.5", "09e1"])
def test_a_leading_zero_is_refused(text: str) -> None:
    assert mistakes(f"x: {text}") == [
        f"f.yaml:1:4: x: {text} has a leading zero (leave it out, or quote the text)\n    x: {text}\n       ^"
    ]


def test_duplicate_keys_are_refused_at_any_depth() -> None:
    assert mistakes("a:\n  b: 1\n  c: 2\n  b: 3\na: 4\n") == [
        "f.yaml:4:3: a.b: duplicate key 'b' (first on line 2)\n      b: 3\n      ^",
        "f.yaml:5:1: a: duplicate key 'a' (first on line 1)\n    a: 4\n    ^",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: !!python/tuple [1]", "f.yaml:1:4: x: no tags here: tag:yaml.org,2002:python/tuple"),
        ("x: !!int five", "f.yaml:1:4: x: no tags here: tag:yaml.org,2002:int"),
        ("x: !mine {a: 1}", "f.yaml:1:4: x: no tags here: !mine"),
        ("x: &loop [1, *loop]", "f.yaml:1:4: x[1]: an alias of a group around it"),
        ("[a]: 1", "f.yaml:1:1: a key must be a word"),
    ],
)
def test_what_yaml_has_and_a_spec_has_not(text: str, expected: str) -> None:
    assert [mistake.splitlines()[0] for mistake in mistakes(text)] == [expected]


def test_the_places_of_keys_and_values() -> None:
    root = Source("a:\n  b: [1, 22]\n", "f.yaml").read()
    b, second = find(root, ("a", "b")), find(root, ("a", "b", 1))
    assert b
    assert second
    assert (b.key.line, b.key.column, b.node.mark.column, second.key.column) == (1, 2, 5, 9)
    assert find(root, ("a", "c")) is None
    assert find(root, ("a", "b", 2)) is None


def test_a_caret_stands_right_behind_tabs_and_wide_prefixes() -> None:
    assert str(Problem(Mark("f", 0, 3, "a:\tb"), ("a",), "no")) == "f:1:4: a: no\n    a:\tb\n      \t^"


def test_problems_are_sorted_by_place_overrides_last_and_told_once() -> None:
    late, early = Problem(Mark("a", 9, 0, "late"), (), "two"), Problem(Mark("a", 1, 0, "early"), (), "one")
    typed = [Problem(Mark("-s z=1"), ("z",), "three"), Problem(Mark("-s a=1"), ("a",), "four")]
    assert str(refusal([*typed, late, early, late])) == (
        "a:2:1: one\n    early\n    ^\na:10:1: two\n    late\n    ^\n-s z=1: z: three\n-s a=1: a: four"
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        Layers().read(Path(name), overrides)
    return str(caught.value)


def test_a_file_is_merged_over_what_it_extends_and_overrides_over_both(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "root.yaml").write_text("a: {b: 1, c: 2}\nd: [1, 2]\nunit: {steps: 5}\n")
    (here / "sub/top.yaml").write_text("extends: ../root.yaml\na: {c: 3}\nd: [9]\nunit: {epochs: 1}\n")
    layers = Layers(whole=[("unit",)])
    root = layers.read(Path("sub/top.yaml"), ["a.e={f: 4}", "a.b=null"])
    assert plain(root) == {"a": {"b": None, "c": 3, "e": {"f": 4}}, "d": (9,), "unit": {"epochs": 1}}
    assert layers.problems == []
    places = [find(root, where) for where in [("a",), ("a", "c"), ("a", "b")]]
    assert [place and place.key.origin for place in places] == ["sub/top.yaml", "sub/top.yaml", "-s a.b=null"]


def test_files_that_cannot_be_read(here: Path) -> None:
    (here / "list.yaml").write_text("- a\n")
    (here / "empty.yaml").write_text("")
    (here / "latin.yaml").write_bytes(b"name: \xe9\n")
    (here / "lost.yaml").write_text("name: x\nextends: gone.yaml\n")
    (here / "self.yaml").write_text("extends: self.yaml\n")
    (here / "odd.yaml").write_text("extends: [a]\n")
    (here / "broken.yaml").write_text("a: 1\nb: [1,\n")
    (here / "zero.yaml").write_text("a: \0\n")
    shape = "expected a spec: a mapping with name, method, data and train"
    assert refused("none.yaml").startswith("none.yaml: cannot read none.yaml: No such file or directory (no shipped")
    assert refused("../none.yaml") == "../none.yaml: cannot read ../none.yaml: No such file or directory"
    assert refused("list.yaml") == f"list.yaml:1:1: {shape}\n    - a\n    ^"
    assert refused("empty.yaml") == f"empty.yaml:1:1: {shape}\n    \n    ^"
    assert refused("latin.yaml") == "latin.yaml: cannot read latin.yaml: not UTF-8 text at byte 6"
    lost = refused("lost.yaml")
    assert lost.startswith("lost.yaml:2:10: extends: cannot read gone.yaml: No such file or directory (no shipped")
    assert lost.endswith(" and others: selfsup recipes)\n    extends: gone.yaml\n             ^")
    assert refused("self.yaml").startswith("self.yaml:1:10: extends: self.yaml extends itself in the end\n")
    assert refused("odd.yaml").startswith(
        "odd.yaml:1:10: extends: expected the path of a spec, relative to this file, or a shipped one\n"
    )
    assert refused("broken.yaml").startswith("broken.yaml:3:1: not YAML: while parsing a flow node, expected")
    assert refused("zero.yaml").startswith("zero.yaml:1:4: not YAML: unacceptable character #x0000")


def test_files_that_are_none(here: Path) -> None:
    (here / "loop.yaml").symlink_to("loop.yaml")
    (here / "loops.yaml").write_text("extends: loop.yaml\n")
    (here / "nul.yaml").write_text('extends: "a\\0b"\n')
    os.mkfifo(here / "pipe.yaml")
    assert refused("loops.yaml").startswith("loops.yaml:1:10: extends: cannot read loop.yaml: Too many levels")
    assert refused("nul.yaml").startswith("nul.yaml:1:10: extends: 'a\\x00b' holds a NUL or half a character")
    assert refused("pipe.yaml") == "pipe.yaml: cannot read pipe.yaml: no file, but a pipe or a device"
    assert refused("/dev/null") == "/dev/null: cannot read /dev/null: no file, but a pipe or a device"


ENDLESS = "more than 32 levels or 100,000 values: no spec needs that"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 31 + "]" * 31, []),  # with the mapping round it 32
        ("[" * 32 + "1" + "]" * 32, [f"f.yaml:1:35: {ENDLESS}"]),
        ("{a: " * 700 + "1" + "}" * 700, [f"f.yaml:1:125: {ENDLESS}"]),
        ("[&a [[[[[[[[[[1]]]]]]]]]], &b [[[[[[[[[[*a]]]]]]]]]], [[[[[[[[[[*b]]]]]]]]]]]", [f"f.yaml:1:18: {ENDLESS}"]),
        (f"[&a [{', '.join('1' * 999)}], {', '.join(['*a'] * 100)}]", [f"f.yaml:1:3000: {ENDLESS}"]),
        ("9" * 100, []),
        ("9" * 101, ["f.yaml:1:4: x: a number of 101 digits"]),
        ("-0x" + "f" * 5000, []),  # a word
        ('"\\0"', ["f.yaml:1:4: x: '\\x00' holds a NUL or half a character, which no text may"]),
        ('"a\\ud800"', ["f.yaml:1:4: x: 'a\\ud800' holds a NUL or half a character, which no text may"]),
        ('{"\\e": 1}', ["f.yaml:1:5: x: a key must be a word"]),
        ('"\\e[1m"', []),
    ],
)
def test_what_no_spec_needs_is_refused(text: str, expected: list[str]) -> None:
    assert [line.splitlines()[0] for line in mistakes(f"x: {text}")] == expected


def test_overrides_that_do_not_read(here: Path) -> None:
    (here / "f.yaml").write_text("a: 1\n")
    layers = Layers()
    layers.read(Path("f.yaml"), ["a", "=1", "a..b=1", "a=[", "a=010", "a={b: 1, b: 2}"])
    expected = "expected path=value, such as optim.lr=1e-3"
    assert [str(problem).split(" (")[0] for problem in layers.problems] == [
        f"-s a: {expected}",
        f"-s =1: {expected}",
        f"-s a..b=1: {expected}",
        "-s a=[: a: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        "-s a=010: a: 010 has a leading zero",
        "-s a={b: 1, b: 2}: a.b: duplicate key 'b'",
    ]
