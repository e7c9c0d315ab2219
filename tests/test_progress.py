import pytest

from selfsup.progress import labelling


@pytest.mark.parametrize(
    ("classes", "labelled", "samples", "text"),
    [
        (2, 16, 16, "2 classes, all labelled"),
        (1000, 12, 1_281_167, "1,000 classes, 12 of 1,281,167 labelled"),
        (1, 3, 4, "1 class, 3 of 4 labelled"),
        (0, 0, 16, "no labels"),
        (2, 0, 16, "no labels"),  # classnames.txt alone
    ],
)
def test_how_much_is_labelled(classes: int, labelled: int, samples: int, text: str) -> None:
    assert labelling(classes, labelled, samples) == text
