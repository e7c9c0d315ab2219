"""CPU of a sweep's trials, in warm slots and in fresh ones, and of the same trials in one process by Optuna and MLflow.

    python tests/benchmarks/trials.py [PAIRS]

Trials are of one step of SimCLR on a ViT of one block, at 32 pixels with batches of 8, and a kNN on 16 images: so what
is measured is everything else. The loop is what a student would write, with timm, torchvision, lightly, scikit-learn,
MLflow and Optuna; it has no isolation, no resume, no report. Seconds of user and system time of all processes.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml
from overhead import spec_of

FEW, MANY = 8, 24


def main(pairs: int) -> None:
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pair in range(pairs):
            for trials in (FEW, MANY):
                for slots in ("warm", "fresh"):
                    home = folder / f"{slots}-{trials}-{pair}"
                    spent.setdefault(f"{slots} {trials}", []).append(_sweep(home, trials, slots))
                spent.setdefault(f"loop {trials}", []).append(_loop(folder / f"loop-{trials}-{pair}", trials))
            print({name: round(seconds[-1], 1) for name, seconds in spent.items()}, flush=True)
    print(f"{'':8}{FEW:>8} trials{MANY:>8} trials{'one more':>10}")
    for name in ("warm", "fresh", "loop"):
        few, many = (median(spent[f"{name} {trials}"]) for trials in (FEW, MANY))
        print(f"{name:8}{few:15.1f}{many:15.1f}{(many - few) / (MANY - FEW):10.2f}")


def _sweep(folder: Path, trials: int, slots: str) -> float:
    folder.mkdir()
    path = spec_of(folder, trials)
    spec = yaml.safe_load(path.read_text())
    spec["resources"]["slots"] = slots
    path.write_text(yaml.safe_dump(spec))
    return _cpu(["selfsup", "sweep", str(path)], folder)


def _loop(folder: Path, trials: int) -> float:
    folder.mkdir()
    spec_of(folder, trials)
    return _cpu([sys.executable, str(Path(__file__).with_name("trials_loop.py")), str(folder), str(trials)], folder)


def _cpu(command: list[str], home: Path) -> float:
    """Return the seconds of a command, and of all that it started and waited for or that outlived it."""
    environment = os.environ | {"SELFSUP_HOME": str(home / "home"), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
