"""What each objective learns from the photographs, how fast, in how much memory: sweeps/objectives.yaml as one table.

python tests/benchmarks/objectives.py

Mean and half of the 95 % interval over seeds, by each objective's own deviation.
"""

from pathlib import Path

import pandas as pd
from scipy.stats import t

import selfsup

SWEEP = Path(__file__).parent.parent.parent / "sweeps" / "objectives.yaml"
COLUMNS = {
    "eval/knn/top1": ("kNN", 1),
    "eval/linear/top1": ("linear", 1),
    "pretrain/rankme": ("RankMe", 1),
    "pretrain/images_per_second": ("images/s", 0),
    "pretrain/peak_memory_mib": ("MiB", 0),
}


def cell(values: pd.Series, digits: int) -> str:
    half = t.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{values.mean():.{digits}f} ± {half:.{digits}f}"


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row an objective or baseline, in the order of kNN."""
    held = found.dropna(subset="value").drop_duplicates(["id", "metric"])
    held["study"] = held["study"].where(held["study"] != "", held["arm"])  # baselines belong to none
    rows = {}
    for study, of_study in held.groupby("study"):
        by_metric = {metric: each["value"] for metric, each in of_study.groupby("metric")}
        rows[study] = {
            title: cell(by_metric[name], digits) for name, (title, digits) in COLUMNS.items() if name in by_metric
        }
    ranked = held[held["metric"] == "eval/knn/top1"].groupby("study")["value"].mean().sort_values(ascending=False)
    return pd.DataFrame.from_dict(rows, orient="index").reindex(ranked.index).fillna("")


if __name__ == "__main__":
    print(table(selfsup.sweep(SWEEP)).to_string())
