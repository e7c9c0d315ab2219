"""A user's job beside a plain loop: clock, CPU and memory of `selfsup run photos/simclr`, and of plain_job.py.

python tests/benchmarks/job.py [PAIRS [STEPS]]

One seed. Pairs are interleaved, and each command's whole tree of processes counts. Ours has planned before, as the
second time; its threads are the spec's: one for training, one for data. The plain loop has torch's: one a core.
"""

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from usage import Used, used_by

ROOT = Path(__file__).parent.parent.parent
RUN = ["-m", "selfsup", "run", "photos/simclr", "-s", "seeds=1", "-s", "baselines=false", "-s"]
RESULTS = ("stages", "runs", "artifacts", "tune", "mlflow.db")  # of a home, removed between runs


def ours(home: Path, steps: int, *settings: str) -> Used:
    for path in (home / name for name in RESULTS):
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    argv = [sys.executable, *RUN, f"train.duration={{steps: {steps}}}", *(f"-s{setting}" for setting in settings)]
    return used_by(argv, os.environ | {"SELFSUP_HOME": str(home)})


def plain(home: Path, steps: int) -> Used:
    with tempfile.TemporaryDirectory() as folder:
        shards = str(next(home.glob("data/photos-*")))
        return used_by(
            [sys.executable, str(ROOT / "tests/benchmarks/plain_job.py"), shards, folder, str(steps)], os.environ
        )


def main(pairs: int, steps: int) -> None:
    print(f"{steps} steps | plain: wall s, CPU s, MiB | ours | ours over plain", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ours(home, 1, "optim.warmup={steps: 1}")
        times = []
        for _ in range(pairs):
            pair = plain(home, steps), ours(home, steps)
            times.append([b / a for a, b in zip(*pair, strict=True)])
            print(" | ".join(", ".join(f"{value:.4g}" for value in row) for row in (*pair, times[-1])), flush=True)
    print("medians", ", ".join(f"{statistics.median(column):.2f}" for column in zip(*times, strict=True)))


if __name__ == "__main__":
    main(*map(int, (*sys.argv[1:], *("5", "90")[len(sys.argv) - 1 :])))
