"""Differences between runs, in settings and in results, as aligned text. No difference is tested or claimed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfsup import evaluator
from selfsup.progress import several
from selfsup.sweeps.report.integrity import COMMIT, DATA, HARDWARE
from selfsup.sweeps.result import Result
from selfsup.sweeps.tags import ARM, STUDY

NOTHING = "–"
CAUTION = "one seed of each says nothing of chance: differences like these may come from the seed alone"
Lines = list[list[str]]


def compare(*runs: Result) -> str:
    """Lay out a column per run; results after the first show their difference to it: "70.1 (-1.15)"."""
    settings, same_settings = _lines([_settings(run) for run in runs], _setting_text)
    results, same_results = _lines([run.metrics for run in runs], _result_text)
    results = [[_directed(name, runs[0].params), *texts] for name, *texts in results]
    head = [["", *(run.id for run in runs)]]
    head += [["arm", *map(_arm, runs)]] if any(map(_arm, runs)) else []
    head.append(["seed", *(str(run.seed) for run in runs)])
    head.append(["status", *(f"{run.status} ({run.reason})" if run.reason else run.status for run in runs)])
    blank = [[""] * (len(runs) + 1)]
    parts = [part for part in (head, settings, results) if part]
    text = _aligned([line for number, part in enumerate(parts) for line in (blank if number else []) + part])
    same = f"the same: {several(same_settings, 'setting')}, {several(same_results, 'result')}"
    return "\n\n".join([text, same, *([CAUTION] * bool(results))])


def as_data(*runs: Result) -> dict[str, Any]:
    """Return the runs with all settings and results, and the names of those that differ."""
    columns = [{**_settings(run), **run.metrics} for run in runs]
    lines, _ = _lines(columns, lambda value, _: str(value))
    data = [
        {"id": run.id, "study": run.tags.get(STUDY, ""), "arm": run.tags.get(ARM, ""), "seed": run.seed}
        | {"status": run.status, "reason": run.reason, "settings": _settings(run), "metrics": dict(run.metrics)}
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


def _settings(run: Result) -> dict[str, str]:
    """Return the settings of a run without its seed, which has a line of its own."""
    made_with = {name: value for name, value in run.tags.items() if name.startswith((COMMIT, HARDWARE, DATA))}
    return {name: value for name, value in run.params.items() if name != "seed"} | made_with


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
