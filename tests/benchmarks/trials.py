"""CPU of a sweep's trials, in warm slots and in fresh ones, and of the same trials in one process by Optuna and MLflow.

    python tests/benchmarks/trials.py [PAIRS]

Trials are of one step of SimCLR on a ViT of one block, at 32 pixels with batches of 8, and a kNN on 16 images: so what
is measured is everything else. The loop is what a student would write, with timm, torchvision, lightly, scikit-learn,
MLflow and Optuna; it has no isolation, no resume, no report. Of all processes are seconds of the clock, of CPU, and
MiB at the peak.
"""

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml
from overhead import spec_of
from usage import Used, used_by

FEW, MANY = 8, 24


def main(pairs: int) -> None:
    spent: dict[str, list[Used]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pair in range(pairs):
            for trials in (FEW, MANY):
                for slots in ("warm", "fresh"):
                    home = folder / f"{slots}-{trials}-{pair}"
                    spent.setdefault(f"{slots} {trials}", []).append(_sweep(home, trials, slots))
                spent.setdefault(f"loop {trials}", []).append(_loop(folder / f"loop-{trials}-{pair}", trials))
            print({name: used[-1] for name, used in spent.items()}, flush=True)
    for what in Used._fields:
        print(f"{what:10}{FEW:>8} trials{MANY:>8} trials{'one more':>10}")
        for name in ("warm", "fresh", "loop"):
            few, many = (median(getattr(used, what) for used in spent[f"{name} {trials}"]) for trials in (FEW, MANY))
            print(f"{name:10}{few:15.1f}{many:15.1f}{(many - few) / (MANY - FEW):10.2f}")


def _sweep(folder: Path, trials: int, slots: str) -> Used:
    folder.mkdir()
    path = spec_of(folder, trials)
    spec = yaml.safe_load(path.read_text())
    spec["resources"]["slots"] = slots
    path.write_text(yaml.safe_dump(spec))
    return _used(["selfsup", "sweep", str(path)], folder)


def _loop(folder: Path, trials: int) -> Used:
    folder.mkdir()
    spec_of(folder, trials)
    return _used([sys.executable, str(Path(__file__).with_name("trials_loop.py")), str(folder), str(trials)], folder)


def _used(command: list[str], folder: Path) -> Used:
    environment = os.environ | {"SELFSUP_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return used_by(command, environment)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
