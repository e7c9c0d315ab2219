"""Which code made a stage: what changes its digest and what does not, and what becomes of results of other code."""

import ast
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import yaml
from tiny import BACKBONE

import selfsup.evals
import selfsup.methods
from selfsup import codebase, evaluator, origin, recall
from selfsup.errors import SpecError
from selfsup.origin import changes, settle
from selfsup.pipelines import cost
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import runner
from selfsup.spec import read
from selfsup.stage import Stage
from selfsup.sweeps.recorder import Recorder, _code
from selfsup.sweeps.session import perform
from selfsup.sweeps.status import _run_status
from selfsup.track import Tracker

DENSE = Path(__file__).parent.parent / "methods" / "dense"
SIMCLR, WORKER = "selfsup.methods.simclr", "selfsup.pipelines.stages.worker"
Edit = Callable[[str, str, str], None]


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Edit]:
    """(module, old, new): as if the text of a module were another, until the test ends."""
    real, copies = codebase._source, {}

    def change(name: str, old: str, new: str) -> None:
        text = copies.get(name, real(name)).read_text()
        assert old in text
        copies[name] = tmp_path / f"{name}.py"
        copies[name].write_text(text.replace(old, new))
        forget()

    monkeypatch.setattr(codebase, "_source", lambda name: copies.get(name, real(name)))
    monkeypatch.setattr(recall, "code_digest", lambda: repr([copy.read_text() for copy in copies.values()]))
    yield change
    forget()


def forget() -> None:
    """A new process would read the files again."""
    for cached in (codebase.modules, codebase._module, origin._recalled):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# figure 9", "# figure 9, left", True),
        ("Defaults are the paper's", "Defaults are those of the paper", True),
        (
            "        return Out(self.loss_scale * loss, ",
            "\n        return Out(\n            self.loss_scale * loss, ",
            True,
        ),
        ('"softmax temperature", symbol="τ"', '"temperature of the softmax", symbol="t"', True),
        ("temperature=self.temperature)", "temperature=2 * self.temperature)", False),
        ("for view in batch.views)", "for view in batch.views[::-1])", False),
        ("blur=hyper.blur)", "blur=0.5)", False),
    ],
)
def test_a_digest_is_of_what_a_module_does(edit: Edit, old: str, new: str, same: bool) -> None:
    before = codebase.modules(WORKER, SIMCLR)
    edit(SIMCLR, old, new)
    after = codebase.modules(WORKER, SIMCLR)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == (set() if same else {"methods.simclr"})


def test_what_computes_counts_and_what_tells_does_not(edit: Edit) -> None:
    found = set(codebase.modules(WORKER, "selfsup.pipelines.modalities.image", SIMCLR))
    reached = {"methods.simclr", "parts.contrastive", "train", "optim", "encoder", "trunk", "pipelines.data.stream"}
    reached |= {f"pipelines.modalities.pixels.{name}" for name in ("decode", "crops", "augment")}
    reached |= {f"pipelines.data.{name}" for name in ("collate", "order", "philox")} | {"pipelines.stages.worker"}
    assert reached <= found
    assert (
        not {"parts.sinkhorn", "methods.mae", "cli", "errors", "track", "pipelines.data.storage", "pipelines.planning"}
        & found
    )
    assert not [name for name in found if name.startswith("sweeps")]
    assert set(codebase.modules("selfsup.evals.knn")) == {"evals.knn", "parts.cosines", "bounded"}
    edit(SIMCLR, "batch: Batch) -> Out:\n", "batch: Batch) -> Out:\n        from selfsup.parts import sinkhorn\n")
    assert set(codebase.modules(WORKER, SIMCLR)) - found == {"parts.sinkhorn"}


@pytest.fixture
def work(tmp_path: Path) -> tuple[Stage, Stage]:
    """A training and an evaluation of it, both finished."""
    train = Stage("pretrain", {"seed": 0}, {"seed": 0, "lr": 0.1}, tmp_path / "home", (SIMCLR,))
    probe = Stage("knn", {"of": train.key}, {"of": train.key}, tmp_path / "home", ("selfsup.evals.knn",), (train,))
    for stage in (train, probe):
        finish(stage)
    return train, probe


def finish(stage: Stage) -> None:
    origin.claim(stage)
    (stage.folder / "checkpoint").mkdir()
    stage.finish({"top1": 50.0})


def test_what_other_code_made_is_refused_accepted_or_made_again(edit: Edit, work: tuple[Stage, Stage]) -> None:
    train, probe = work
    settle(work, "refuse")
    edit(SIMCLR, "temperature=self.temperature", "temperature=2 * self.temperature")
    assert (changes(train), changes(probe)) == (("methods.simclr",), ())
    with pytest.raises(SpecError, match=r"(?s)^1 stage was made by .*pretrain-\w+: methods\.simclr\n.*--again") as one:
        settle(work, "refuse")
    assert str(one.value).startswith("1 stage was made by other code than this; changed since:\n")
    edit("selfsup.evals.knn", "(cosine / temp", "(2 * cosine / temp")
    with pytest.raises(SpecError, match=r"^2 stages were made by other code than this; changed since:\n"):
        settle(work, "refuse")
    settle(work, "accept")
    settle(work, "refuse")
    edit(SIMCLR, "2 * self.temperature", "3 * self.temperature")
    assert changes(train) == ("methods.simclr",), "what was accepted is that code, and no later one"
    settle(work, "again")
    assert [stage.done for stage in work] == [False, False], "what was made from it goes, too"
    assert [path.name for path in train.folder.iterdir()] == ["lock"]


def test_a_result_is_of_the_training_that_it_was_made_from(edit: Edit, work: tuple[Stage, Stage]) -> None:
    """Another spec made the training anew, by other code: the evaluation that lies beside it is not of that."""
    train, probe = work
    edit(SIMCLR, "temperature=self.temperature", "temperature=2 * self.temperature")
    settle([train], "again")
    assert changes(probe) == (train.key,), "already before the training is there again"
    finish(train)
    assert changes(probe) == (train.key,)
    settle(work, "again")
    assert (train.done, probe.done) == (True, False)


def test_half_a_training_is_not_continued_by_other_code(edit: Edit, tmp_path: Path) -> None:
    stage = Stage("pretrain", {"seed": 0}, {"seed": 0}, tmp_path, (SIMCLR,))
    origin.claim(stage)
    origin.claim(stage)
    edit(SIMCLR, "temperature=self.temperature", "temperature=2 * self.temperature")
    with pytest.raises(SpecError, match=r"methods\.simclr"):
        settle([stage], "refuse")
    settle([stage], "accept")
    origin.claim(stage)
    assert origin.recorded_code(stage) != origin.current_code(stage), "the note stays that of the code that began it"
    assert origin.accepted_code(stage) == [origin.current_code(stage)]


def test_what_is_older_than_these_notes_counts_with_a_remark(edit: Edit, work: tuple[Stage, Stage]) -> None:
    for stage in work:
        (stage.folder / "code.json").unlink()
    edit(SIMCLR, "temperature=self.temperature", "temperature=2 * self.temperature")
    settle(work, "refuse")
    assert list(origin.describe(work, origin.changes_by_key(work))) == [
        "made before code was noted: 2 stages, taken as they are"
    ]


def test_a_default_that_changed_is_no_finished_work(work: tuple[Stage, Stage]) -> None:
    train, _ = work
    for answer in ("refuse", "accept"):
        with pytest.raises(
            SpecError, match=r"a default has changed since this was made.*\n  lr: 0\.2 here, 0\.1 there"
        ):
            settle([replace(train, resolved={"seed": 0, "lr": 0.2})], answer)  # type: ignore[arg-type]
    settle([replace(train, resolved={"seed": 0, "lr": 0.1, "new": 1})], "refuse")  # which is the code's doing
    settle([replace(train, resolved={"seed": 0, "lr": 0.2})], "again")
    assert not train.done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> str:
    return make(tmp_path_factory.mktemp("set"), number=16).root


@pytest.fixture
def planned(tmp_path: Path, data: str) -> Callable[..., PlannedRun]:
    def make(method: str = "simclr") -> PlannedRun:
        spec: dict[str, Any] = {"name": "tiny", "method": method, "data": {"train": data, "val": data}}
        spec |= {"backbone": BACKBONE, "train": {"duration": {"steps": 2}, "batch": 8}, "evals": {"knn": {"k": 3}}}
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec | {"baselines": False}))
        return plan(read(tmp_path / "spec.yaml"), tmp_path / "home")[0]

    return make


def test_many_modules_are_counted_and_the_objective_is_named_first(work: tuple[Stage, Stage]) -> None:
    names = ("batch", "blocks", "coding", "encoder", "families", "masks", "methods.simclr", "optim")
    first = next(origin.describe(work, {work[0].key: names}))
    expected = "methods.simclr, batch, blocks, coding, encoder, families and 2 others"
    assert first == f"made by other code: 1 stage (!); {expected} changed since"


def test_most_stages_come_first_and_few_lines_are_written(work: tuple[Stage, Stage]) -> None:
    changed = {f"rare-{number}": (f"methods.rare{number}",) for number in range(7)} | {
        f"often-{number}": ("masks",) for number in range(3)
    }
    *lines, rest, remedy = origin.describe(work, changed)
    assert lines[0] == "made by other code: 3 stages (!); masks changed since"
    assert rest == f"made by other code: {8 - len(lines)} stages (!), for which others changed"
    assert remedy.strip() == origin.REMEDY


def test_a_plan_names_what_changed_and_a_run_refuses(
    edit: Edit, planned: Callable[..., PlannedRun], tmp_path: Path
) -> None:
    run = planned()
    for stage in run.stages:
        finish(stage)
    assert "other code" not in cost.describe([[run]])
    assert _run_status(run) == ("done", "")
    edit("selfsup.parts.contrastive", "/ temperature", "/ (2 * temperature)")
    assert run.id == planned().id
    assert "made by other code: 1 stage (!); parts.contrastive changed since" in cost.describe([[run]])
    assert "pretrain*!, embed*, knn*" in cost.describe([[run]])
    status, why = _run_status(run)
    assert (status, "pretrain: parts.contrastive" in why) == ("pending", True)
    recorder = Recorder(Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}"))
    with pytest.raises(SpecError, match=r"(?s)pretrain-\w+: parts\.contrastive\n.*--accept-code"):
        perform([run], recorder)


def test_a_trial_does_as_the_user_answered(
    edit: Edit, planned: Callable[..., PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may meet what another sweep made: a whole training, and half an evaluation of it."""
    run = planned()
    pretrain, embed, _ = run.stages
    finish(pretrain)
    origin.claim(embed)
    edit("selfsup.parts.contrastive", "/ temperature", "/ (2 * temperature)")
    edit("selfsup.pipelines.stages.evaluate", "def source_of(", "def _unused() -> None: ...\n\n\ndef source_of(")
    monkeypatch.setattr(runner, "WORK", {"embed": lambda *_: {"seconds": 1.0}})
    monkeypatch.setattr(runner, "probe", lambda *_: {"top1": 50.0})
    with pytest.raises(SpecError, match=r"^1 stage was .*\n.*pretrain-\w+: parts\.contrastive\n"):
        runner.perform(run)
    assert not embed.done
    runner.perform(replace(run, code="accept"))
    assert run.done
    codes = [[origin.current_code(pretrain)], [origin.current_code(embed)], []]
    assert [origin.accepted_code(stage) for stage in run.stages] == codes
    runner.perform(run)


def test_mlflow_is_told_what_made_a_run(edit: Edit, planned: Callable[..., PlannedRun]) -> None:
    run = planned()
    assert _code(run) == {}
    for stage in run.stages:
        finish(stage)
    tags = _code(run)
    noted = dict(item.split(":") for item in tags["selfsup.modules"].split())
    assert noted.keys() >= {"methods.simclr", "pipelines.stages.evaluate", "evals.knn", "train"}
    edit(SIMCLR, "temperature=self.temperature", "temperature=2 * self.temperature")
    settle(run.stages, "accept")
    assert _code(run) == tags | {"selfsup.accepted": "pretrain"}


def test_an_objective_of_ones_own_is_known_by_its_text(
    edit: Edit, planned: Callable[..., PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(codebase._source(SIMCLR).read_text())
    monkeypatch.setattr(selfsup.methods, "__path__", [*selfsup.methods.__path__, str(tmp_path / "own")])
    before = planned("mine")
    edit("selfsup.methods.mine", "# figure 9", "# figure 10")
    assert planned("mine").id == before.id
    edit("selfsup.methods.mine", "temperature=self.temperature", "temperature=2 * self.temperature")
    after = planned("mine")
    assert all(new.key != old.key for new, old in zip(after.stages, before.stages, strict=True))
    assert codebase.unshipped_digest("methods", "simclr") == codebase.unshipped_digest("evals", "linear") == {}


def test_what_has_a_golden_file_is_shipped_and_every_evaluation() -> None:
    """And dense heads, whose steps test_dense_finetune holds."""
    golden = {path.stem for path in (Path(__file__).parent / "golden").glob("*.json")}
    dense = {f"dense.{path.stem}" for path in DENSE.glob("[!_]*.py")}
    assert golden | dense == selfsup.methods.SHIPPED
    assert set(evaluator.names()) == selfsup.evals.SHIPPED


def test_threads_parse_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11 has ended those that parsed at once in a SystemError."""
    busy, parse = Lock(), ast.parse

    def alone(source: bytes) -> ast.Module:
        assert busy.acquire(blocking=False), "another thread parses"
        time.sleep(0.01)
        try:
            return parse(source)
        finally:
            busy.release()

    forget()
    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(ast, "parse", alone)
        digests = list(pool.map(codebase.modules, ("selfsup.evals.knn", "selfsup.evals.linear", SIMCLR, WORKER)))
    assert all(digests)
