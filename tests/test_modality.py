"""What every kind of data has from the interface alone."""

import pytest

from selfsup import modality
from selfsup.errors import SelfsupError
from selfsup.modality import ready


def test_a_kind_of_data_whose_packages_are_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    image = modality.load("image")
    assert ready("image") is image
    monkeypatch.setattr(type(image), "requires", ("json", "nowhere"))
    message = (
        r"^image needs nowhere, which is not installed: run `pip install 'selfsup\[image\]'` wherever selfsup runs$"
    )
    with pytest.raises(SelfsupError, match=message):
        ready("image")
