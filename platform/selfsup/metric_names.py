"""Metrics that were renamed: stores, logs and specs of before are read as if they said the names of today."""

from collections.abc import Mapping

FORMER = {  # name of today -> first name, as logs and as MLflow have it
    f"{space}samples_per_second": f"{space}images_per_second" for space in ("", "pretrain/")
}
CURRENT = {former: name for name, former in FORMER.items()}


def current_name(name: str) -> str:
    """Return the name of today of a metric."""
    return CURRENT.get(name, name)


def former_name(name: str) -> str:
    """Return the first name of a metric, which keys of before contain."""
    return FORMER.get(name, name)


def current_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Return values by the names of today; where a run has both names, the one of today is newer."""
    return {current_name(name): values[name] for name in sorted(values, key=FORMER.__contains__)}
