"""The demo, a report of 10,000 runs, 200 trials or the tests, beside an older revision, in interleaved pairs.

python tests/benchmarks/earlier.py REVISION [demo|report|trials|tests [PAIRS]]

Each revision sweeps its own demo with one seed, in a home of its own whose data are packed before. The report is that
of report_10k.py, as the revision has it: seconds of reading a store the first time. The trials are those of
overhead.py. The tests are `make test` of the revision and of HEAD, each in an environment of its own, made before.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cli import DEMO, checkout, command, medians
from usage import used_by

SECOND = 1.0  # between looks at CPU: looking is work, too
ONE_SEED = [DEMO, "-s", "seeds=1"]


def demo(source: Path) -> tuple[float, ...]:
    """Seconds of the clock and of CPU; of an earlier one in the home, data alone are left."""
    home = source.parent / "build" / "home"
    environment = _environment(source) | {"SELFSUP_HOME": str(home)}
    if not home.exists():
        home.mkdir(parents=True)
        subprocess.run(command(["plan", *ONE_SEED], source), env=environment, check=True, capture_output=True)
    for path in home.iterdir():
        if path.name != "data":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    return used_by(command(["sweep", *ONE_SEED], source), environment, SECOND)[:2]


def report(source: Path) -> tuple[float, ...]:
    return (next(float(line.split()[-2]) for line in _printed(source, "report_10k.py") if line.startswith("first ")),)


def trials(source: Path) -> tuple[float, ...]:
    return (next(float(line.split()[3]) for line in _printed(source, "overhead.py", "200") if " trials in " in line),)


def tests(source: Path) -> tuple[float, ...]:
    """Seconds of the clock and of CPU, whether they pass or not."""
    make = f"make -s -C {source.parent}"
    subprocess.run(f"{make} .venv/ready", shell=True, check=True)
    return used_by(["sh", "-c", f"{make} test || true"], os.environ, SECOND)[:2]


def _printed(source: Path, *words: str) -> list[str]:
    argv = [sys.executable, str(source.parent / "tests" / "benchmarks" / words[0]), *words[1:]]
    return subprocess.run(
        argv, env=_environment(source), stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def _environment(source: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}


def main(revision: str, measure: str, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sources = [checkout(revision, Path(scratch, "before")), checkout("HEAD", Path(scratch, "now"))]
        used = []
        for _ in range(pairs):
            used.append([MEASURES[measure](source) for source in sources])
            print(*used[-1], file=sys.stderr, flush=True)
    print(f"| seconds | {revision} | now | ratio |\n|---|---|---|---|")
    for place, kind in enumerate(("wall", "CPU")[: len(used[0][0])]):
        before, now, ratio = medians([tuple(one[place] for one in pair) for pair in used])
        print(f"| {measure}, {kind} | {before:.1f} | {now:.1f} | {ratio:.2f} |")


MEASURES = {measure.__name__: measure for measure in (demo, report, trials, tests)}

if __name__ == "__main__":
    measure, pairs = (*sys.argv[2:], *("demo", "5")[len(sys.argv) - 2 :])
    main(sys.argv[1], measure, int(pairs))
