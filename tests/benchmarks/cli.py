"""CPU of the command line: `selfsup --help` beside `optuna --help`, and commands beside those of an older revision.

python tests/benchmarks/cli.py REVISION [PAIRS [FOLDER]]

User and system time of a command and all below it, so that a busy machine counts little; pairs are interleaved. Each
revision has a home of its own, in which every command has run once: what that took is shown, too, since a first plan
has to import torch. The finished sweep has 14 trainings of 8 steps, and is made by each revision before: 15 minutes,
or less where FOLDER, build/bench-cli, holds the homes of an earlier call.
"""

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SHORT = [
    word
    for value in ("train.duration={steps: 8}", "optim.warmup={steps: 2}", "train.log_every=2")
    for word in ("-s", value)
]
DEMO = "sweeps/demo.yaml"
SWEEP = ["sweep", DEMO, *SHORT]
COMMANDS = (
    ["describe"],
    ["describe", "mae"],
    ["plan", "pipelines/photos/mae.yaml"],
    ["plan", DEMO],
    ["status", DEMO],
    ["report", DEMO, *SHORT],
    SWEEP,
)


def seconds(argv: list[str], source: Path | None, home: Path) -> float:
    """CPU of a command of the package in `source`, and of all processes that it waited for."""
    path = {"PYTHONPATH": str(source)} if source else {}
    environment = os.environ | path | {"SELFSUP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(argv, env=environment, cwd=home, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        sink.seek(0)
        assert process.returncode in (0, 1), sink.read().decode()
    return usage.ru_utime + usage.ru_stime


def checkout(revision: str, folder: Path) -> Path:
    """Unpack a revision; return the folder to import it from, with its packages below each other as in a wheel."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    for name in ("methods", "pipelines", "sweeps"):
        (folder / "platform" / "selfsup" / name).symlink_to(folder / name)
    return folder / "platform"


def table(name: str, commands: list[tuple[list[str], Path | None, Path]], pairs: int) -> str:
    """A row of the table: medians of two commands, and of their ratio; and what the first time took."""
    first, *times = [[seconds(*command) for command in commands] for _ in range(pairs + 1)]
    before, now, ratio = medians(times)
    return f"| {name} | {before:.2f} | {now:.2f} | {ratio:.2f} | {first[0]:.1f}, {first[1]:.1f} |"


def medians(pairs: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the medians of what was before, of what is now, and of their ratios."""
    before, now = (statistics.median(column) for column in zip(*pairs, strict=True))
    return before, now, statistics.median(now / before for before, now in pairs)


def main(revision: str, pairs: int, folder: Path) -> None:
    homes = [folder / revision, folder / "now"]
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        places = list(zip((checkout(revision, Path(scratch)), None), homes, strict=True))
        print(f"| command | {revision}, s | now, s | ratio | the first time, s |\n|---|---|---|---|---|", flush=True)
        helps = [([str(BIN / name), "--help"], None, homes[1]) for name in ("optuna", "selfsup")]
        print(table("`selfsup --help`, beside `optuna --help`", helps, pairs), flush=True)
        for source, home in places:
            seconds(command(SWEEP, source), source, home)
        for words in COMMANDS:
            print(
                table(f"`{' '.join(words[:2])}`", [(command(words, place[0]), *place) for place in places], pairs),
                flush=True,
            )


def command(words: list[str], source: Path | None = None) -> list[str]:
    """A command with specs of its own revision."""
    root = source.parent if source else ROOT
    return [sys.executable, "-m", "selfsup", *(str(root / word) if word.endswith(".yaml") else word for word in words)]


if __name__ == "__main__":
    pairs, folder = (*sys.argv[2:], *("5", "build/bench-cli")[len(sys.argv) - 2 :])
    main(sys.argv[1], int(pairs), (ROOT / folder).absolute())
