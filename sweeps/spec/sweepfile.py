"""A sweep file: a spec, and what of it is varied. A spec without axes is a sweep of one arm.

    name: mask_ratio
    extends: photos/mae
    ablate: {hyper.mask_ratio: [0.5, 0.75, 0.9]}           # one factor at a time round the spec's own values
    grid: {optim.lr: [1e-3, 2e-3], train.batch: [64, 128]}  # crossed with each other
    seeds: 3
    primary: eval/linear/top1                               # claims are made of it alone
    expected: {source: "MAE, Table 1", mask_ratio=0.5: {eval/linear/top1: 71.9}}

`studies:` is a list of such mappings, each with its own name, base and axes. One spec is read for each, of four layers:
what the file extends, what the study extends, what the file says, what the study says; the command line goes over all.
A search (see space.py) has `search:` instead of axes; its studies are the methods to choose from.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from selfsup import evaluations, explain, outside
from selfsup.errors import SpecError
from selfsup.evaluator import Metric
from selfsup.knob import Choice, Knobs, knob
from selfsup.layers import Layers, find, less, plain, written
from selfsup.naming import name_problem
from selfsup.source import Node, Problem, refusal
from selfsup.spec import WHOLE
from selfsup.sweeps.spec.design import Design, design, metrics
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import SearchedKnob, take

FILES = {"answers", "classes", "from", "weights"}  # knobs that name a file, whose content settles a plan, too
SAID = {"expected", "published"}  # words


class SweepHeader(Knobs):
    """The settings that a sweep file has once, whatever its studies."""

    question: str = knob("", "what the sweep is to find out, in a sentence")
    primary: str | None = knob(None, "the one metric that claims are made of, such as eval/knn/top1; null: all of them")
    search: Search | None = knob(None, "how to search, instead of arms that all run to the end")


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep file."""

    path: Path
    question: str
    designs: tuple[Design, ...]
    search: Search | None
    overrides: tuple[str, ...] = ()
    primary: str = ""

    @property
    def name(self) -> str:
        return self.designs[0].default.name

    @property
    def kind(self) -> Literal["ablate", "search", "plain"]:
        if self.search:
            return "search"
        return "ablate" if len(self.designs) > 1 or len(self.designs[0].settings) > 1 else "plain"

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return the metrics that tables show, by name and in table order."""
        return {name: metric for study in self.designs for name, metric in metrics(study.default).items()}


def read(path: Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Read the sweep in a YAML file under overrides such as "train.duration.steps=20", which reach every study.

    Raises SpecError, with every mistake at once and the place of each.
    """
    layers = Layers(WHOLE)
    base, own = layers.split(path)
    command_line = layers.overrides(overrides)
    top = layers.stack(base, own, *command_line)
    studies = list(_studies(layers, path, (base, own, *command_line), top))
    problems = layers.problems
    trees = [plain(outside.rooted(layers.stack(*bare))) for _, (bare, _) in studies]
    header = _header(
        top, {name: metric for tree in trees for name, metric in evaluations.metrics(tree).items()}, problems
    )
    known = tuple(problems)
    checked = [design(name, layers.stack(*bare), searched, known, problems) for name, (bare, searched) in studies]
    designs = tuple(study for study in checked if study)
    problems += _name_problems(top, [name for name, _ in studies])
    if header and len(designs) == len(checked):
        problems += _search_problems(top, designs, header.search)
        problems += _primary_problems(top, designs, header.primary)
    if problems or header is None:
        raise refusal(problems)
    return SweepFile(path, header.question, designs, header.search, tuple(overrides), header.primary or "")


def trees(path: Path, overrides: Sequence[str] = ()) -> list[Node]:
    """Return the tree of each study of a valid file, with its axes and with paths as they are written."""
    layers = Layers(WHOLE)
    base, own = layers.split(path)
    parts = base, own, *layers.overrides(overrides)
    return [layers.stack(*bare) for _, (bare, _) in _studies(layers, path, parts, layers.stack(*parts))]


def signature(path: Path, overrides: Sequence[str] = (), above: Sequence[Path] = ()) -> list[Any] | None:
    """Return all that a valid file says, as JSON data. It settles a plan together with the data and selfsup's code.

    Digests of the files that it names, and what the specs of earlier trainings say, are part of it. None for a search,
    for a file that names code from elsewhere or a finished run, and for one that cannot be read. above: the files whose
    earlier training it is.
    """
    layers = Layers(WHOLE)
    base, own = layers.split(path)
    parts = base, own, *layers.overrides(overrides)
    top = layers.stack(*parts)
    named = [(name, outside.rooted(layers.stack(*bare))) for name, (bare, _) in _studies(layers, path, parts, top)]
    studies = [[name, plain(tree)] for name, tree in named]
    header = {name: plain(top).get(name) for name in SweepHeader.model_fields}
    if layers.problems or header["search"] is not None or not all(_is_closed(tree) for _, tree in studies):
        return None
    files = [_content(name, knob, (*above, path)) for _, tree in studies for knob, name in _files(tree)]
    return None if None in files else [str(path), str(Path.cwd()), list(overrides), header, studies, files]


def _is_closed(value: Any, *above: str) -> bool:
    """Return whether nothing in a tree names code from elsewhere, nor axes data or files."""
    if value is None or set(above) & SAID:
        return True
    if isinstance(value, dict):
        return all(_is_closed(inner, *above, *str(key).split(".")) for key, inner in value.items())
    if "augment" in above or (set(above) & {"data", *FILES} and set(above) & {"ablate", "grid"}):
        return False
    if isinstance(value, tuple):
        return all(_is_closed(inner, *above) for inner in value)
    return not isinstance(value, str) or "://" in value or above[-1] in FILES or not outside.is_outside(value)


def _files(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield knob and value of each knob in a tree that names a file."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key in FILES and inner not in (None, "timm"):
            yield key, inner
        yield from _files(inner)


def _content(name: Any, knob: str, above: Sequence[Path]) -> Any:
    """Return the digest of a file, or what the spec of an earlier training says; None where neither can be told."""
    if knob == "from":
        path = Path(str(name))
        return signature(path, (), above) if "/" in str(name) and path not in above else None
    with suppress(OSError), Path(str(name)).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
    return None


def command_for(sweep_files: Sequence[SweepFile]) -> str:
    """Return `run`, or `sweep` for a file with axes or a search. Raises SpecError for one of these among several."""
    swept = [sweep_file.path for sweep_file in sweep_files if sweep_file.kind != "plain"]
    if swept and len(sweep_files) > 1:
        raise SpecError(f"{swept[0]}: a sweep is a job of its own; submit it alone")
    return "sweep" if swept else "run"


def _studies(
    layers: Layers, path: Path, parts: Sequence[Node], top: Node
) -> Iterator[tuple[str, tuple[list[Node], list[SearchedKnob]]]]:
    """Yield the name of each study, the layers of its spec with axes, and its searched knobs."""
    bare = [less(part, "studies", *SweepHeader.model_fields) for part in parts]
    studies = written(top, "studies")
    if studies is None:
        yield "", take(bare)
        return
    layers.problems.extend(_shape_problems(top, studies.node))
    base, *own = bare
    for study in studies.node.value if isinstance(studies.node.value, tuple) else ():
        if isinstance(study.value, dict):
            below = layers.base(study, (path,))
            stack = (base, below, own[0], less(study, "name"), *own[1:])
            named = study.value.get("name")
            name = named.node.value if named else outside.short(str(plain(layers.stack(*stack)).get("method")))
            yield str(name), take(stack)


def _shape_problems(top: Node, studies: Node) -> Iterator[Problem]:
    if not find(top, ("name",)):
        yield Problem(top.mark, ("name",), "required but missing: what the sweep goes by")
    if not isinstance(studies.value, tuple) or not studies.value:
        yield Problem(studies.mark, ("studies",), "expected a list of mappings")
        return
    for number, study in enumerate(studies.value):
        if not isinstance(study.value, dict):
            yield Problem(study.mark, ("studies", number), "expected a mapping: {extends: ...}")
        elif "name" in study.value and (why := name_problem(str(study.value["name"].node.value))):
            yield Problem(study.value["name"].node.mark, ("studies", number, "name"), f"expected {why}")


def _name_problems(top: Node, names: Sequence[str]) -> Iterator[Problem]:
    section = find(top, ("studies",))
    for number, name in enumerate(names):
        if section and name in names[:number]:
            yield Problem(section.key, ("studies",), f"two studies are called {name}; give one of them another name")


def _header(top: Node, measured: Mapping[str, Metric], problems: list[Problem]) -> SweepHeader | None:
    """Read the header. measured: what evaluations yield, which says whether a search maximizes it."""
    tree = plain(top)
    fields = {name: tree[name] for name in SweepHeader.model_fields if name in tree}
    try:
        return SweepHeader.model_validate(fields, context={"metrics": measured})
    except ValidationError as error:
        problems += explain.problems(error, SweepHeader, top, {})
        return None


def _search_problems(top: Node, designs: Sequence[Design], search: Search | None) -> Iterator[Problem]:
    """Yield problems of a search with the rest of the file."""
    section = find(top, ("search",))
    if section is None or search is None:
        if any(study.space for study in designs):
            message = "required but missing: how to search, such as {metric: eval/knn/top1}"
            yield Problem(top.mark, ("search",), message)
        return
    if any(study.factors or study.grid for study in designs):
        message = "ablate and grid beside search: two kinds of sweep, never mixed; the one runs every arm to its end"
        yield Problem(section.key, ("search",), message)
    if len(designs) == 1 and not designs[0].space:
        yield Problem(section.key, ("search",), "nothing to search; let a value be {search: auto}")
    if search.sampler == "cmaes" and (path := _first_choice(designs)):
        yield Problem(section.key, ("search", "sampler"), f"cmaes draws numbers from ranges; {path} is a choice")
    for metric in search.objectives:
        if metric.startswith("eval/") and not all(_measures(metric, study) for study in designs):
            hint = explain.did_you_mean(metric, {name for study in designs for name in metrics(study.default)})
            yield Problem(section.key, ("search", "metric"), f"no evaluation of every study gives {metric}", hint)
    if search.scheduler != "none" and (why := _unranked(search, designs)):
        yield Problem(section.key, ("search",), why)
    without = any(not study.default.resources.gpus_per_worker for study in designs)
    if "pretrain/gpu_hours" in search.objectives and without:
        message = "pretrain/gpu_hours is not measured without resources.gpus_per_worker; pretrain/seconds is"
        yield Problem(section.key, ("search", "metric"), message)


def _unranked(search: Search, designs: Sequence[Design]) -> str:
    """Return why a scheduler has no number to rank trials by while they train; "" where it has one."""
    metric, _ = search.ranking
    if metric.startswith("pretrain/"):
        return ""
    compares = f"scheduler: {search.scheduler} compares trials that still train"
    if not metric.startswith("eval/") or not all(_measures(metric, study) for study in designs):
        return f"{compares}, and no evaluation of every study gives {metric}"
    if not all(evaluations.every(study.default.evals) for study in designs):
        remedy = "say evals: {every: {epochs: 10}}, which evaluates while they do, or rank: pretrain/rankme or another"
        return f"{compares}, which have no {metric} yet; {remedy} number of the training"
    if not all(metric.split("/")[1] in evaluations.with_curves(study.default.evals) for study in designs):
        why = f"{metric} trains on, from encoders that are trained"
        return f"{compares}, and {why}; say rank: eval/knn/top1 or another"
    return ""


def _primary_problems(top: Node, designs: Sequence[Design], primary: str | None) -> Iterator[Problem]:
    section = find(top, ("primary",))
    shown = {name for study in designs for name in metrics(study.default)}
    if section and primary is not None and primary not in shown:
        hint = explain.did_you_mean(primary, shown) or f"there are {', '.join(sorted(shown))}"
        yield Problem(section.node.mark, ("primary",), f"no table shows {primary}", hint)


def _first_choice(designs: Sequence[Design]) -> str:
    if len(designs) > 1:
        return "method"
    return next((dimension.path for dimension in designs[0].space if isinstance(dimension.range, Choice)), "")


def _measures(metric: str, study: Design) -> bool:
    return metric.rpartition("/")[0] in {name.rpartition("/")[0] for name in metrics(study.default)}
