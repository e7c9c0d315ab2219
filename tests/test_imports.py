"""What commands import beside selfsup: the first time, and once what they say is kept."""

from pathlib import Path

import pytest
from command_line import packed_folder, process

HEAVY = {"torch", "timm", "torchvision", "mlflow", "ray", "optuna", "pandas", "matplotlib", "sklearn", "scipy"}
PLANNING = {"torch", "timm", "torchvision"}
LIGHT = "--help", "recipes", "runs", "clean --dry-run", "shards check train"
PLANNED = "describe", "describe mae", "schema", "plan tiny.yaml", "plan tiny.yaml --json", "status tiny.yaml"
SCRIPT = """
import sys
from selfsup.cli import app
for words in sys.argv[2:]:
    try:
        app(words.split(), standalone_mode=False)
    except SystemExit:
        pass
    print("after", words + ":", *sorted(set(sys.argv[1].split(",")) & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_folder(tmp_path_factory.mktemp("imports"))


def imported(folder: Path, *commands: str) -> dict[str, set[str]]:
    """-> command: the heavy modules of a process once it and those before it have run."""
    done = process("-c", SCRIPT, ",".join(HEAVY), *commands, cwd=folder)
    assert done.code == 0, done.err
    lines = [line.removeprefix("after ") for line in done.out.splitlines() if line.startswith("after ")]
    assert len(lines) == len(commands)
    return {words: set(modules.split()) for words, _, modules in (line.partition(":") for line in lines)}


def test_commands_import_what_they_need_and_the_second_time_nothing(folder: Path) -> None:
    first = imported(folder, *LIGHT, *PLANNED)
    assert first == {words: set() for words in LIGHT} | dict.fromkeys(PLANNED, PLANNING)
    again = imported(folder, *LIGHT, *PLANNED)
    assert again == {words: set() for words in (*LIGHT, *PLANNED)}
