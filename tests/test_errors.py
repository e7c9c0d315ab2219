"""Codes of errors: one each, documented, kept when an error crosses a process."""

import pickle
import re
from pathlib import Path

from selfsup import errors
from selfsup.errors import SelfsupError

README = (Path(__file__).parent.parent / "README.md").read_text()
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SelfsupError)]


def test_codes_are_unique_and_the_readme_has_them_with_their_exit_codes() -> None:
    shown = re.findall(r"^\| (`[a-z`, -]+`) \| (\d) \|", README, flags=re.MULTILINE)
    documented = {code: int(status) for codes, status in shown for code in re.findall(r"`([a-z-]+)`", codes)}
    assert len({error.code for error in CLASSES}) == len(CLASSES)
    assert documented == {error.code: error.exit_code for error in CLASSES}


def test_codes_stay() -> None:
    assert {error.__name__: (error.code, error.exit_code) for error in CLASSES} == {
        "SelfsupError": ("failed", 1),
        "NonFiniteError": ("non-finite", 1),
        "ExhaustedError": ("out-of-memory", 1),
        "PreemptedError": ("preempted", 1),
        "SpecError": ("spec", 2),
        "CodeError": ("other-code", 2),
        "DataError": ("data", 3),
        "CheckpointError": ("checkpoint", 4),
        "TrackError": ("tracking", 5),
    }


def test_an_error_from_another_process_keeps_its_code() -> None:
    for error in CLASSES:
        assert pickle.loads(pickle.dumps(error("gone", "data.train"))).code == error.code
