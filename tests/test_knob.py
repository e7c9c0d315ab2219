"""Knobs: values, identities, and the lines that describe them."""

from typing import Literal

import pytest
from pydantic import ValidationError

from selfsup.knob import REQUIRED, Choice, KnobLine, Knobs, Range, as_dict, knob, knob_lines, non_default


class Inner(Knobs):
    size: int = knob(4, "how big", symbol="n", sweep=Choice(2, 4, 8), ge=1, le=64)
    every: int = knob(10, "how often to tell", result=False)


class Outer(Knobs):
    rate: float = knob(..., "how fast", sweep=Range(0.1, 10, log=True), gt=0)
    kind: Literal["a", "b"] = knob("a", "which")
    pair: tuple[float, float] = knob((0.5, 0.9), "two of them")
    inner: Inner = knob(Inner(), "a group")
    extra: Inner | None = knob(None, "a group that may be missing")


def test_what_equals_its_default_is_not_told() -> None:
    spelled_out = Outer(rate=1.0, kind="a", pair=(0.5, 0.9), inner=Inner(size=4), extra=None)
    assert non_default(spelled_out) == non_default(Outer(rate=1.0)) == {"rate": 1.0}


def test_an_integer_is_the_same_number_as_a_float() -> None:
    assert non_default(Outer(rate=1)) == {"rate": 1.0}
    assert type(non_default(Outer(rate=1))["rate"]) is float


def test_told_goes_into_groups_and_leaves_out_what_changes_no_result() -> None:
    assert non_default(Outer(rate=1.0, inner=Inner(size=8, every=1))) == {"rate": 1.0, "inner": {"size": 8}}
    assert non_default(Outer(rate=1.0, inner=Inner(every=1))) == {"rate": 1.0}


def test_a_group_that_was_missing_is_told_even_if_all_in_it_is_default() -> None:
    assert non_default(Outer(rate=1.0, extra=Inner())) == {"rate": 1.0, "extra": {}}


def test_a_group_differs_from_the_default_of_its_field_not_of_its_class() -> None:
    class Big(Knobs):
        inner: Inner = knob(Inner(size=8), "a group with a default of its own")

    assert non_default(Big()) == {}
    assert non_default(Big(inner=Inner(size=4))) == {"inner": {"size": 4}}


def test_resolved_has_everything_as_json_would() -> None:
    inner = {"size": 4, "every": 10}
    assert as_dict(Outer(rate=2)) == {"rate": 2.0, "kind": "a", "pair": [0.5, 0.9], "inner": inner, "extra": None}


def test_described() -> None:
    lines = {line.path: line for line in knob_lines(Outer)}
    assert list(lines) == ["rate", "kind", "pair", "inner.size", "inner.every", "extra", "extra.size", "extra.every"]
    sweep = Range(0.1, 10, log=True)
    assert lines["rate"] == KnobLine("rate", "number", REQUIRED, None, "> 0", sweep, True, "how fast")
    assert lines["inner.size"] == KnobLine(
        "inner.size", "integer", 4, "n", "≥ 1, ≤ 64", Choice(2, 4, 8), True, "how big"
    )
    assert not lines["inner.every"].result
    assert [lines[path].type for path in ("kind", "pair", "extra")] == [
        "a | b",
        "[number, number]",
        "{size, every} | null",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": True},
        {"rate": "1"},
        {"rate": float("nan")},
        {"rate": 0},
        {"rate": 1, "rat": 2},
        {"rate": 1, "pair": (1,)},
    ],
)
def test_nothing_is_coerced_and_nothing_is_ignored(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Outer.model_validate(wrong)


def test_knobs_are_frozen_and_hashable() -> None:
    assert len({Outer(rate=1.0), Outer(rate=1), Outer(rate=2)}) == 2
    with pytest.raises(ValidationError, match="frozen"):
        Outer(rate=1).rate = 2.0  # type: ignore[misc]


def test_every_field_must_be_a_knob() -> None:
    class Bare(Knobs):
        size: int = 4

    with pytest.raises(AssertionError, match="knob"):
        non_default(Bare(size=5))


def test_sweeps_refuse_the_impossible() -> None:
    for wrong in (lambda: Range(1, 1), lambda: Range(0, 1, log=True), Choice):
        with pytest.raises(AssertionError):
            wrong()
