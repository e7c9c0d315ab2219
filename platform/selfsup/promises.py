"""Shared parts of the checks of contracts of a user's class."""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from selfsup.errors import SpecError
from selfsup.knob import Knobs


def need_defaults(name: str, hyper: type[Knobs]) -> None:
    """Raise SpecError where a class cannot be made, since one of its knobs has no valid default."""
    try:
        hyper()
    except ValidationError as error:
        raise SpecError(f"{name}: its knobs need valid defaults to be checked: {error.errors()[0]['msg']}") from None


def outcome(contract: Callable[..., str], *given: Any) -> str:
    """Return how a contract is broken, "" where it is kept. Any exception becomes the user's message."""
    try:
        return contract(*given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
