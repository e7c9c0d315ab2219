"""What each objective learns from the photographs, how fast, in how much memory: sweeps/objectives.yaml as one table.

python tests/benchmarks/objectives.py

Mean and half of the 95 % interval over seeds, by each objective's own deviation. gain: in kNN, over the untrained
encoder of the same seed, with whose weights training began, unless the objective draws its own (`initialize`).
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from scipy.stats import t

import selfsup
from selfsup.sweeps.layout import lay_out
from selfsup.sweeps.spec.study import Study
from selfsup.sweeps.spec.sweepfile import read

SWEEP = Path(__file__).parent.parent.parent / "sweeps" / "objectives.yaml"
KNN = "eval/knn/top1"
COLUMNS = {
    KNN: ("kNN", 1),
    "eval/linear/top1": ("linear", 1),
    "pretrain/rankme": ("RankMe", 1),
    "pretrain/samples_per_second": ("samples/s", 0),
    "pretrain/peak_memory_mib": ("MiB", 0),
}


def cell(values: pd.Series, digits: int) -> str:
    known = values.dropna()
    if known.empty:
        return ""
    half = t.ppf(0.975, len(known) - 1) * known.std() / len(known) ** 0.5 if len(known) > 1 else float("nan")
    return f"{known.mean():.{digits}f} ± {half:.{digits}f}"


def row(held: pd.DataFrame, ids: Mapping[int, str]) -> dict[str, str]:
    mine = held.reindex(ids.values())
    return {title: cell(mine[name], digits) for name, (title, digits) in COLUMNS.items()}


def gain(held: pd.DataFrame, study: Study) -> str:
    [untrained] = [arm for arm in study.floor if arm.changed["method"] == "untrained"]
    after, before = (held[KNN].reindex(arm.ids.values()).reset_index(drop=True) for arm in (study.arms[0], untrained))
    return cell(after - before, 1)


def table(path: Path) -> pd.DataFrame:
    """A row an objective or baseline, in the order of kNN."""
    found = selfsup.sweep(path).dropna(subset="value").drop_duplicates(["id", "metric"])
    held, (sweep, _) = found.pivot(index="id", columns="metric", values="value"), lay_out(read(path, []))
    rows = {study.name: row(held, study.arms[0].ids) | {"gain": gain(held, study)} for study in sweep.studies}
    rows |= {arm.name: row(held, arm.ids) for arm in sweep.baselines}
    ranked = sorted(rows, key=lambda name: float((rows[name]["kNN"] or "-1").split()[0]), reverse=True)
    return pd.DataFrame.from_dict(rows, orient="index").loc[ranked].fillna("")


if __name__ == "__main__":
    print(table(SWEEP).to_string())
