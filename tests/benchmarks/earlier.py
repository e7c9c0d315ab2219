"""The demo, and a report of 10,000 runs, beside an older revision of both: clock and CPU of interleaved pairs.

python tests/benchmarks/earlier.py REVISION [PAIRS [SEEDS]]

Each revision sweeps its own demo with so many seeds, in a home of its own whose data are packed before. The report is
that of report_10k.py, as the revision has it: seconds of the clock of reading a store the first time.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cli import DEMO, ROOT, checkout, command, medians
from usage import Used, used_by

SECOND = 1.0  # between looks at CPU: looking is work, too


def demo(source: Path, home: Path, seeds: int) -> Used:
    """What the demo uses; of an earlier one in the home, data alone are left."""
    for path in home.iterdir():
        if path.name != "data":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    return used_by(command(["sweep", DEMO, "-s", f"seeds={seeds}"], source), _environment(source, home), SECOND)


def report(source: Path) -> float:
    argv = [sys.executable, str(source.parent / "tests/benchmarks/report_10k.py")]
    printed = subprocess.run(argv, env=_environment(source), capture_output=True, text=True, check=True).stdout
    return next(float(line.split()[-2]) for line in printed.splitlines() if line.split()[:-2] == ["first"])


def _environment(source: Path, home: Path = ROOT) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(source), "SELFSUP_HOME": str(home), "OMP_NUM_THREADS": "1"}


def show(what: str, pairs: list[tuple[float, float]]) -> None:
    before, now, ratio = medians(pairs)
    print(f"| {what} | {before:.1f} | {now:.1f} | {ratio:.2f} |", flush=True)


def main(revision: str, pairs: int, seeds: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sources = [checkout(revision, Path(scratch, "before")), ROOT / "platform"]
        homes = [Path(scratch, name) for name in ("home-before", "home-now")]
        for source, home in zip(sources, homes, strict=True):
            home.mkdir()
            plan = command(["plan", DEMO, "-s", f"seeds={seeds}"], source)
            subprocess.run(plan, env=_environment(source, home), check=True, capture_output=True)
        print(f"| seconds | {revision} | now | ratio |\n|---|---|---|---|", flush=True)
        used = []
        for _ in range(pairs):
            used.append([demo(*place, seeds) for place in zip(sources, homes, strict=True)])
            print(*used[-1], file=sys.stderr, flush=True)
        for what in Used._fields[:2]:
            show(f"demo, {what}", [tuple(getattr(one, what) for one in pair) for pair in used])
        show("report of 10,000 runs, wall", [(report(sources[0]), report(sources[1])) for _ in range(pairs)])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, (*sys.argv[2:], *("5", "1")[len(sys.argv) - 2 :])))
