"""CPU of the command line: `selfsup --help` beside `optuna --help`, and commands beside those of an older revision.

python tests/benchmarks/cli.py REVISION [PAIRS]

User and system time of a command and all below it, so that a busy machine counts little; pairs are interleaved. Each
revision has a home of its own, in which every command has run once: what that took is shown, too, since a first plan
has to import torch. The finished sweep has 14 trainings of 8 steps, and is made by each revision before: 15 minutes.
"""

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SHORT = [
    word
    for value in ("train.duration={steps: 8}", "optim.warmup={steps: 2}", "train.log_every=2")
    for word in ("-s", value)
]
SWEEP = ["sweep", "demo", *SHORT]
COMMANDS = {
    "describe": ["describe"],
    "describe mae": ["describe", "mae"],
    "plan photos/mae": ["plan", "photos/mae"],
    "plan demo": ["plan", "demo"],
    "status demo": ["status", "demo"],
    "report demo": ["report", "demo", *SHORT],
    "sweep demo, finished": SWEEP,
}


def seconds(argv: list[str], source: Path, home: Path) -> float:
    """CPU of a command of the package in `source`, and of all processes that it waited for."""
    environment = os.environ | {"SELFSUP_HOME": str(home), "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(argv, env=environment, cwd=home, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        sink.seek(0)
        assert process.returncode in (0, 1), sink.read().decode()
    return usage.ru_utime + usage.ru_stime


def checkout(revision: str, folder: Path) -> Path:
    """Unpack a revision; return the folder to import it from, which a wheel would be like."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return linked(folder, folder / "platform")


def linked(root: Path, source: Path) -> Path:
    """Give a package the folders that setuptools would put below it."""
    source.mkdir(exist_ok=True)
    if not (source / "selfsup").exists():
        (source / "selfsup").mkdir()
        for path in (root / "platform" / "selfsup").iterdir():
            (source / "selfsup" / path.name).symlink_to(path)
    for name in ("methods", "pipelines", "sweeps"):
        (source / "selfsup" / name).symlink_to(root / name)
    return source


def row(name: str, old: list[float], new: list[float], first: list[float]) -> str:
    ratio = statistics.median(after / before for before, after in zip(old, new, strict=True))
    firsts = " then ".join(f"{value:.1f}" for value in first)
    return f"| {name} | {statistics.median(old):.2f} | {statistics.median(new):.2f} | {ratio:.2f} | {firsts} |"


def main(revision: str, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sources = [checkout(revision, Path(scratch, "old")), linked(ROOT, Path(scratch, "new"))]
        homes = [Path(scratch, name) for name in ("old-home", "new-home")]
        for home in homes:
            home.mkdir()
        print(f"| command | {revision}, s | now, s | ratio | first, s |\n|---|---|---|---|---|", flush=True)
        times = [
            [seconds([str(BIN / name), "--help"], sources[1], homes[1]) for name in ("optuna", "selfsup")]
            for _ in range(pairs + 1)
        ]
        print(
            row("`optuna --help`, `selfsup --help`", *map(list, zip(*times[1:], strict=True)), first=times[0]),
            flush=True,
        )
        for source, home in zip(sources, homes, strict=True):
            seconds(command(SWEEP), source, home)
        for name, words in COMMANDS.items():
            times = [
                [seconds(command(words), *place) for place in zip(sources, homes, strict=True)]
                for _ in range(pairs + 1)
            ]
            print(row(f"`{name}`", *map(list, zip(*times[1:], strict=True)), first=times[0]), flush=True)


def command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "selfsup", *words]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
