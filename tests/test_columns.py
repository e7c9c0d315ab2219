"""Columns of text."""

from selfsup.columns import WIDE, aligned


def test_a_long_text_moves_its_own_row_alone() -> None:
    long = "x" * (WIDE + 1)
    assert aligned([("knob", "allowed", "meaning"), ("a", "1 | 2", "b"), ("c", long, "d")]).splitlines() == [
        "knob  allowed  meaning",
        "a     1 | 2    b",
        f"c     {long}  d",
    ]


def test_a_column_of_long_texts_alone_takes_no_place_of_its_own() -> None:
    long = "x" * (WIDE + 1)
    assert aligned([("a", "done", long), ("bb", "done", long)]) == f"a   done  {long}\nbb  done  {long}"
