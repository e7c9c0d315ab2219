"""Fixtures of small objectives, which `helpers/small.py` builds."""

from collections.abc import Callable

import pytest
import small
from small import Setting


@pytest.fixture(scope="session")
def setting() -> Callable[..., Setting]:
    return small.setting


@pytest.fixture(scope="session")
def moved() -> Callable[..., None]:
    return small.moved
