"""Trainings that evaluations score: the encoder of a run goes on with labels or maps, as a run of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from selfsup import conflicts, evaluations
from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation
from selfsup.evaluator import DENSE
from selfsup.few import shared
from selfsup.method import load as load_method
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.subset import Subset
from selfsup.source import Mark, Node
from selfsup.spec import Run, run_type

KEPT = "data", "input", "embed", "resources", "seed"  # sections of the run that its encoder is of
CHECKED = "optim", "train", "stream", "resources"  # that have to agree
PACE = (
    "precision",
    "checkpoint_activations",
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
)  # settings of the loop that it keeps


def training(run: Run, evaluation: Evaluation, *, goes_on: bool) -> Run:
    """Return the run whose training an evaluation scores. goes_on: from the encoder of `run`, whatever its weights.

    Raises SpecError, with the place of the evaluation, where its settings do not go together.
    """
    asked = evaluation.evaluator.training(evaluation.hyper)
    assert asked, f"{evaluation.name} scores no training"
    kept = {name: getattr(run, name) for name in KEPT} | {"evals": evaluations.section(())()}
    weights = {"weights": None} if goes_on else {}
    settings = {
        "method": asked["method"],
        "hyper": load_method(asked["method"]).Hyper.model_validate(asked["hyper"]),
        "backbone": run.backbone.model_copy(update={**asked.get("backbone", {}), **weights}),
        "stream": run.stream.model_copy(update=asked.get("stream", {})),
        "optim": type(run.optim).model_validate(asked["optim"]),
        "train": type(run.train).model_validate({name: getattr(run.train, name) for name in PACE} | asked["train"]),
    }
    for problem in conflicts.problems({name: (kept | settings)[name] for name in CHECKED}, Node(Mark(""), {})):
        raise SpecError(problem.message, knob_of(evaluation, str(problem.where[-1])))
    return run_type(asked["method"])(**kept, **settings)


def labelled(train: Manifest, evaluation: Evaluation, seed: int) -> Manifest:
    """Return the samples that such a training is of: all that have a label, or a share of these; all, of maps."""
    if evaluation.evaluator.target in DENSE:
        return train
    asked = evaluation.evaluator.training(evaluation.hyper) or {}
    number = shared(asked["share"], train.num_labelled, len(train.classes)) if "share" in asked else None
    return train.part(Subset(number, seed))


@contextmanager
def located(evaluation: Evaluation) -> Iterator[None]:
    """Give an error of the block, about such a training, the place of the evaluation's knob, or of the evaluation."""
    try:
        yield
    except SpecError as error:
        raise SpecError(error.bare, knob_of(evaluation, *error.paths)) from error


def knob_of(evaluation: Evaluation, *paths: str) -> str:
    """Return the path of the first of an evaluation's knobs that is named as a path ends, or of the evaluation."""
    names = [path.rpartition(".")[2] for path in paths]
    knob = next((name for name in names if name in type(evaluation.hyper).model_fields), "")
    return f"evals.{evaluation.name}.{knob}".rstrip(".")
