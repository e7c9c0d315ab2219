"""Differences between runs, in settings and in results, as aligned text. No difference is tested or claimed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfsup import evaluator
from selfsup.progress import several
from selfsup.sweeps.report.results import EVAL
from selfsup.sweeps.result import Result
from selfsup.sweeps.tags import ARM, STUDY
from selfsup.track import COMMIT, DATA, HARDWARE

NOTHING = "–"
CAUTION = "one seed of each says nothing of chance: differences like these may come from the seed alone"
Lines = list[list[str]]


def compare(*runs: Result) -> str:
    """Lay out a column per run: scores, settings, then what the runs were made with, and the course of the training.

    Results after the first show their difference to it: "70.1 (-1.15)".
    """
    scores, same_scores = _lines([_scores(run) for run in runs], _result_text)
    scores = [[_directed(name, runs[0].params), *texts] for name, *texts in scores]
    settings, same_settings = _lines([_params(run) for run in runs], _setting_text)
    made_with, same_origins = _lines([_made_with(run) for run in runs], _setting_text)
    course, same_course = _lines([_course(run) for run in runs], _result_text)
    head = [["", *(run.id for run in runs)]]
    head += [["arm", *map(_arm, runs)]] if any(map(_arm, runs)) else []
    head.append(["seed", *(str(run.seed) for run in runs)])
    head.append(["status", *(f"{run.status} ({run.reason})" if run.reason else run.status for run in runs)])
    blank = [[""] * (len(runs) + 1)]
    parts = [part for part in (head, scores, settings, made_with, course) if part]
    text = _aligned([line for number, part in enumerate(parts) for line in (blank if number else []) + part])
    numbers = several(same_settings + same_origins, "setting"), several(same_scores + same_course, "result")
    return "\n\n".join([text, f"the same: {', '.join(numbers)}", *([CAUTION] * bool(scores or course))])


def as_data(*runs: Result) -> dict[str, Any]:
    """Return the runs with all settings and results, and the names of those that differ."""
    columns = [{**_params(run), **_made_with(run), **run.metrics} for run in runs]
    lines, _ = _lines(columns, lambda value, _: str(value))
    data = [
        {"id": run.id, "study": run.tags.get(STUDY, ""), "arm": run.tags.get(ARM, ""), "seed": run.seed}
        | {"status": run.status, "reason": run.reason, "settings": _params(run) | _made_with(run)}
        | {"metrics": dict(run.metrics)}
        for run in runs
    ]
    return {"runs": data, "differing": [name for name, *_ in lines]}


def _directed(name: str, params: Mapping[str, str]) -> str:
    """Return the name of a metric, with a remark where less of it is better, as shipped evaluators say."""
    space, _, metric = name.rpartition("/")
    evaluation = space.removeprefix("eval/")
    use = params.get(f"evals.{evaluation}.use", evaluation)
    known = space.startswith("eval/") and use in evaluator.names()
    scale = evaluator.load(use).metrics.get(metric) if known else None
    return f"{name} (less is better)" if scale and scale.better == "min" else name


def _arm(run: Result) -> str:
    return ": ".join(run.tags[name] for name in (STUDY, ARM) if name in run.tags)


def _params(run: Result) -> dict[str, str]:
    """Return the settings of a run without its seed, which has a line of its own."""
    return {name: value for name, value in run.params.items() if name != "seed"}


def _made_with(run: Result) -> dict[str, str]:
    return {name: value for name, value in run.tags.items() if name.startswith((COMMIT, HARDWARE, DATA))}


def _scores(run: Result) -> dict[str, float]:
    return {name: value for name, value in run.metrics.items() if name.startswith(EVAL)}


def _course(run: Result) -> dict[str, float]:
    return {name: value for name, value in run.metrics.items() if not name.startswith(EVAL)}


def _lines(columns: Sequence[Mapping[str, Any]], text: Callable[[Any, Any], str]) -> tuple[Lines, int]:
    """Return a line for each name with differing values, sorted by name, and the number of equal ones."""
    names = sorted(set().union(*columns))
    differing = [name for name in names if any(column.get(name) != columns[0].get(name) for column in columns[1:])]
    lines = [
        [
            name,
            text(columns[0].get(name), None),
            *(text(column.get(name), columns[0].get(name)) for column in columns[1:]),
        ]
        for name in differing
    ]
    return lines, len(names) - len(differing)


def _setting_text(value: str | None, first: str | None) -> str:  # noqa: ARG001 (settings have no difference)
    return NOTHING if value is None else value


def _result_text(value: float | None, first: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.6g}" if first is None else f"{value:.6g} ({value - first:+.4g})"


def _aligned(lines: Lines) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (("  ".join(map(str.ljust, line, widths))).rstrip() for line in lines)
    return "\n".join(padded)
