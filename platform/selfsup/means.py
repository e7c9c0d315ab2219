"""Means over evaluations of a suite: numbers of a run that are made of those of its evaluations, by no stage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from selfsup.evaluator import Metric
from selfsup.explain import did_you_mean

Suite = Mapping[str, Mapping[str, Metric]]  # name of an evaluation -> its metrics


class Mean(NamedTuple):
    """A metric that is the mean of others. of: their names in MLflow."""

    of: tuple[str, ...]
    scale: Metric


def metrics(name: str, members: Sequence[str], suite: Suite) -> dict[str, Mean]:
    """Return the means of a valid list of evaluations, one of each score that all yield, such as eval/transfer/top1."""
    shared = {metric: [suite[member][metric] for member in members] for metric in _shared(members, suite)}
    return {
        f"eval/{name}/{metric}": Mean(
            tuple(f"eval/{member}/{metric}" for member in members),
            Metric(
                unit=scales[0].unit if len({scale.unit for scale in scales}) == 1 else "",
                better=scales[0].better,
                headline=all(scale.headline for scale in scales),
            ),
        )
        for metric, scales in shared.items()
    }


def values(means: Mapping[str, Sequence[str]], numbers: Mapping[str, float]) -> dict[str, float]:
    """Return means of numbers, those of which none is missing. means: name -> the names of those that it is of."""
    return {
        name: sum(numbers[one] for one in of) / len(of)
        for name, of in means.items()
        if all(one in numbers for one in of)
    }


def problem(members: Sequence[str], suite: Suite) -> str:
    """Return why there is no mean of these evaluations; "" where there is one."""
    if len(set(map(str, members))) < max(2, len(members)):
        return f"expected two evaluations or more, each once, not [{', '.join(map(str, members))}]"
    if unknown := [str(member) for member in members if member not in suite]:
        return f"no evaluation is called '{unknown[0]}' ({did_you_mean(unknown[0], suite) or _there_are(suite)})"
    shared = _shared(members, suite)
    if not shared:
        kinds = "; ".join(f"{member} has {', '.join(_scores(suite[member])) or 'none'}" for member in members)
        return f"these evaluations share no score: {kinds}"
    return next(_mixed(shared, members, suite), "")


def _mixed(shared: Sequence[str], members: Sequence[str], suite: Suite) -> Iterator[str]:
    for metric in shared:
        better = {suite[member][metric].better: member for member in members}
        if len(better) > 1:
            yield f"less of {metric} is better in {better['min']}, more of it in {better['max']}: a mean says nothing"


def _shared(members: Sequence[str], suite: Suite) -> list[str]:
    return [metric for metric in _scores(suite[members[0]]) if all(metric in _scores(suite[one]) for one in members)]


def _scores(scales: Mapping[str, Metric]) -> list[str]:
    return [metric for metric, scale in scales.items() if scale.better]


def _there_are(suite: Suite) -> str:
    return f"there are {', '.join(sorted(suite))}"
