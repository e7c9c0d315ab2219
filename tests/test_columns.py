"""Columns of text."""

from selfsup.columns import WIDE, aligned


def test_a_long_text_moves_its_own_row_alone() -> None:
    long = "x" * (WIDE + 1)
    assert aligned([("knob", "allowed", "meaning"), ("a", "1 | 2", "b"), ("c", long, "d")]).splitlines() == [
        "knob  allowed  meaning",
        "a     1 | 2    b",
        f"c     {long}  d",
    ]
