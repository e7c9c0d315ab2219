"""Views of a sweep in MLflow's UI: filter, order, columns and charts, kept as tags of its experiment for short links.

A link names a view by its key, as those do that the UI's own Share button makes; what it holds is the UI's own format
(of 3.17), and a UI that does not know it shows the experiment.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selfsup.mlflow_store import PORT, WORKFLOW, experiment_page
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.tags import ARM, KIND, STUDY, SWEEP, TRIAL
from selfsup.track import SEED, TRAINING, Tracker

PREFIX = "mlflow.sharedViewState."  # of a tag that holds a view
MOST_COLUMNS = 30  # so that a view fits into a tag, of 5000 characters
SHOWN = 5  # sweeps that `charts` tells of
LOSS = "pretrain/loss"
CURVES = "^pretrain/(loss|rankme|feature_std)$"  # of the charts by arm


class UiView(NamedTuple):
    """A view of the runs of one kind. mode: how it opens, TABLE or CHART. columns: besides the name of a run.

    groups: the tags whose runs charts show as one curve, their mean.
    """

    title: str
    kind: str
    mode: str
    metric: str
    columns: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def state(self, sweep: str) -> dict[str, Any]:
        """Return the view as MLflow's UI keeps it, with its title and mode. sweep: the digest in its runs' tags."""
        keys = [{"mode": "tag", "groupByData": tag} for tag in self.groups]
        means = {"aggregateFunction": "average", "groupByKeys": keys}
        return {
            "title": self.title,
            "mode": self.mode,
            "searchFilter": f"tags.`{SWEEP}` = '{sweep}' AND tags.`{KIND}` = '{self.kind}'",
            "orderByKey": f"metrics.`{self.metric}`",
            "orderByAsc": False,
            "selectedColumns": list(self.columns[:MOST_COLUMNS]),
            "columnOrder": list(self.columns[:MOST_COLUMNS]),
            "runsHiddenMode": "FIRST_20_RUNS",
        } | ({"groupBy": means, "chartsSearchFilter": CURVES} if keys else {})


def views(sweep: Sweep) -> list[UiView]:
    """Return the views of a sweep: its arms with their factors and results, its runs, and their curves by arm."""
    if not sweep.studies:
        assert sweep.search
        metrics = tuple(sweep.search.search.objectives)
        columns = _columns("metrics", metrics)
        return [UiView(f"trials by {metric}", TRIAL, "CHART", metric, columns) for metric in metrics]
    paths = dict.fromkeys(factor.path for study in sweep.studies for factor in (*study.factors, *study.grid))
    groups = (STUDY, ARM) if len(sweep.studies) > 1 else (ARM,)  # each study has a default arm
    named = _columns("tags", groups[:-1])
    results = [f"{metric}/{name}" for metric in sweep.metrics for name in ("mean", "low", "high", "n")]
    arms = (*named, *_columns("params", paths), *_columns("metrics", results))
    runs = (*named, *_columns("tags", [ARM, SEED]), *_columns("metrics", sweep.metrics))
    best = next(iter(sweep.metrics), LOSS)
    return [
        UiView("arms", "arm", "TABLE", f"{best}/mean", arms),
        UiView("runs", "run", "TABLE", best, runs),
        UiView("curves", "run", "CHART", best, runs, groups),
    ]


def _columns(group: str, names: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{group}.`{name}`" for name in names)


def keep(tracker: Tracker, sweep: Sweep, root: str) -> None:
    """Keep the views of a sweep in its experiment, and lead to them from the note of its run, `root` to MLflow."""
    tags = {}
    for number, view in enumerate(views(sweep)):
        state = {"number": number} | view.state(sweep.digest)
        tags[PREFIX + _key(sweep.digest, view.title)] = json.dumps(state, separators=(",", ":"))
    experiment = tracker.experiment(sweep.name)
    assert experiment
    tracker.tag_experiment(experiment, TRAINING | tags)
    page = f"#/experiments/{experiment.experiment_id}"
    targets = {"report": f"{page}/runs/{root}/artifacts/report/report.html?{WORKFLOW}"} if sweep.studies else {}
    targets |= _links(page, sweep.digest, tags) | {"encoders": f"{page}/models?{WORKFLOW}"}
    lines = [sweep.question, " · ".join(f"[{title}]({url})" for title, url in targets.items())]
    tracker.note(root, "\n\n".join(line for line in lines if line))


def links(tracker: Tracker, name: str, digest: str, port: int = PORT) -> dict[str, str]:
    """-> title of each view of a sweep: its URL, that of a local store while `selfsup ui` runs."""
    experiment = tracker.experiment(name)
    if experiment is None:
        return {}
    page = experiment_page(tracker.uri, experiment.experiment_id, port)
    return _links(page, digest, experiment.tags) or {"runs": f"{page}/runs?{WORKFLOW}"}


def charts(tracker: Tracker, port: int) -> Iterator[str]:
    """Yield a line for each of the latest sweeps and searches, and below it links to its views in MLflow's UI."""
    roots = [run for kind in ("sweep", "search") for run in tracker.search_runs(f"tags.`{KIND}` = '{kind}'")]
    for run in sorted(roots, key=lambda root: root.info.start_time)[: -SHOWN - 1 : -1]:
        digest = run.data.tags[SWEEP]
        yield f"{run.info.run_name}, plan {digest}"
        yield from (f"  {title}: {url}" for title, url in links(tracker, run.info.run_name, digest, port).items())


def _links(page: str, digest: str, tags: Mapping[str, str]) -> dict[str, str]:
    """-> title: URL of the views of a sweep among the tags of its experiment."""
    states = {tag: json.loads(tags[tag]) for tag in tags if tag.startswith(f"{PREFIX}{digest}-")}
    urls = {}
    for tag, state in sorted(states.items(), key=lambda item: item[1].get("number", 0)):
        mode = f"&compareRunsMode={state['mode']}" if state["mode"] != "TABLE" else ""
        urls[state["title"]] = f"{page}/runs?viewStateShareKey={tag.removeprefix(PREFIX)}{mode}&{WORKFLOW}"
    return urls


def _key(digest: str, title: str) -> str:
    return f"{digest}-{re.sub('[^A-Za-z0-9]+', '-', title)}"
