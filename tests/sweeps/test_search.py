"""A search: what is drawn, what counts as a trial, what survives a kill, and what it ends with on a real Ray."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial
from tiny import BACKBONE

from selfsup.errors import SpecError
from selfsup.failures import collapsed
from selfsup.knob import Range
from selfsup.pipelines.data.manifest import Manifest
from selfsup.sweeps.explore import PATIENCE, BudgetStopper, history
from selfsup.sweeps.journal import Journal, RemainingBudget, journal_summary
from selfsup.sweeps.layout import lay_out, statuses
from selfsup.sweeps.report import files as report
from selfsup.sweeps.search import OptunaSearcher, ProposedRuns, TrialSpace
from selfsup.sweeps.session import conduct
from selfsup.sweeps.spec.confirm import search_key
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.sweepfile import SweepFile, read
from selfsup.sweeps.trial import ENDED, SAMPLES, STEP, TRAINED
from selfsup.track import Tracker

RECIPES = Path(__file__).parent.parent.parent / "pipelines" / "photos"
KNN, LOSS = "eval/knn/top1", "pretrain/loss"
TINY: dict[str, Any] = {
    "backbone": BACKBONE,
    "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
    "train": {"duration": {"steps": 20}, "batch": 16, "checkpoint_every": 5, "log_every": 5},
    "stream": {"lanes": 4, "chunk": 8, "mix": 4},
    "evals": {"knn": {"k": 3}},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
}
STUDIES = [
    {"method": "simclr", "hyper": {"temperature": {"search": {"low": 0.5, "high": 1.0}}}},
    {
        "method": "mae",
        "hyper": {"decoder_width": {"search": {"low": 8, "high": 32}}, "decoder_heads": 4, "decoder_depth": 1},
        "optim": {"name": "adamw", "betas": {"search": [[0.9, 0.95], [0.9, 0.99]]}},
    },
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 64), ("val", 16))}


@pytest.fixture
def both(sets: dict[str, str], tmp_path: Path) -> Callable[..., SweepFile]:
    """(**search) -> a search over two methods: one has a range, the other a choice of lists and a width that only some
    heads divide.
    """

    def make(**search: object) -> SweepFile:
        path = tmp_path / "both.yaml"
        section = {"metric": KNN, "sampler": "random", "trials": 5} | search
        path.write_text(yaml.safe_dump({"name": "both", "data": sets, "search": section, "studies": STUDIES} | TINY))
        return read(path)

    return make


def journal(folder: Path, **search: object) -> Journal:
    return Journal(Search.model_validate({"metric": KNN} | search), "toy", "key", folder)


NOBODY: Any = SimpleNamespace(stopped={}, over="")


def told(held: Journal) -> optuna.Study:
    return optuna.load_study(study_name=held.name, storage=held.storage)


class TestJournal:
    def test_what_is_left(self, tmp_path: Path) -> None:
        held = journal(tmp_path, trials=9, samples=1000, hours=1.0)
        assert held.left == (9, 1000, 3600)
        noon = datetime(2026, 1, 1, 12)
        for state, begin, end, samples in [
            (TrialState.COMPLETE, 0, 10, 300),
            (TrialState.PRUNED, 5, 20, 100),  # of which five minutes beside the first
            (TrialState.COMPLETE, 30, 35, 200),  # after a pause
            (TrialState.FAIL, 0, 60, 500),  # does not count
        ]:
            one = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None)
            one.datetime_start, one.datetime_complete = (noon + timedelta(minutes=at) for at in (begin, end))
            one.user_attrs[SAMPLES] = samples
            told(held).add_trial(one)
        assert held.left == (6, 400, 3600 - 25 * 60)
        assert held.left
        assert not RemainingBudget(6, 0, 1)

    def test_what_was_interrupted_is_proposed_again_and_counts_once(self, tmp_path: Path) -> None:
        held = journal(tmp_path, trials=4)
        lost = told(held).ask()
        drawn = lost.suggest_float("x", 0, 1)
        again = journal(tmp_path, trials=4)
        again.resume()
        again.resume()  # it waits once, however often it is found
        assert again.left.trials == 4
        resumed, fresh = told(again).ask(), told(again).ask()
        assert resumed.suggest_float("x", 0, 1) == drawn != fresh.suggest_float("x", 0, 1)
        told(again).tell(resumed, 1.0)
        assert again.configs == [{"x": drawn}]
        assert again.left.trials == 3

    def test_it_says_whether_it_repeats_and_what_it_leaves(self, tmp_path: Path) -> None:
        assert journal_summary("toy", "key", tmp_path) == (0, 0, 0)
        assert not (tmp_path / "searches").exists()
        for _ in range(2):  # killed before the first was proposed: nothing differs
            held = journal(tmp_path)
            held.resume()
            assert held.sessions == 1
        for number in range(3):
            told(held).tell(told(held).ask(), float(number))
        assert journal_summary("toy", "key", tmp_path) == (3, 1, 0)
        held.resume()
        assert held.sessions == journal_summary("toy", "key", tmp_path).sessions == 2
        assert journal_summary("toy", "other", tmp_path) == (0, 0, 3)

    def test_a_range_that_was_widened_begins_anew_and_says_so(
        self, both: Callable[..., SweepFile], tmp_path: Path
    ) -> None:
        it = both()
        assert list(history(it, tmp_path)) == []
        assert it.search
        held = Journal(it.search, it.name, search_key(it, tmp_path), tmp_path)
        held.resume()
        told(held).tell(told(held).ask(), 1.0)
        [line] = history(it, tmp_path)
        assert line == "goes on after 1 trial: in 2 sessions; in one it would have drawn others"
        (design, *rest) = it.designs
        wider = replace(design, space=(Dimension("hyper.temperature", Range(0.1, 1.0), integer=False),))
        [line] = history(replace(it, designs=(wider, *rest)), tmp_path)
        assert line.startswith("beware  1 trial of this name had another space, metric, sampler, seed or default")


class TestSearcher:
    def test_values_that_do_not_go_together_are_drawn_anew_and_are_no_trials(
        self, both: Callable[..., SweepFile], tmp_path: Path
    ) -> None:
        it = both()
        assert it.search
        held, plans = journal(tmp_path), ProposedRuns(it.designs, tmp_path)
        found = [
            OptunaSearcher(it.search, it.designs, held, plans.of, NOBODY).suggest(str(number)) for number in range(30)
        ]
        states = [trial.state for trial in told(held).trials]
        assert states.count(TrialState.RUNNING) == 30
        assert TrialState.FAIL in states  # a width that 4 heads do not divide
        assert held.left.trials == 20
        mae = [plans.drawn(config)[1] for config in found if config["study"] == 1]
        assert {values["hyper.decoder_width"] % 4 for values in mae} == {0}
        assert {tuple(values["optim.betas"]) for values in mae} == {(0.9, 0.95), (0.9, 0.99)}
        simclr = [config for config in found if config["study"] == 0]
        assert all(config.keys() == {"study", "0.hyper.temperature"} for config in simclr)
        assert len({config["0.hyper.temperature"] for config in simclr}) == len(simclr) > 5  # each session draws on

    def test_a_space_that_holds_no_spec(self, both: Callable[..., SweepFile], tmp_path: Path) -> None:
        it = both()
        assert it.search

        def refuse(_: object) -> None:
            raise SpecError("width 9 does not divide into 4 heads")

        with pytest.raises(SpecError, match=r"200 draws in a row .* width 9 does not divide"):
            OptunaSearcher(it.search, it.designs, journal(tmp_path), refuse, NOBODY).suggest("a")

    @pytest.mark.parametrize(
        ("last", "state"),
        [
            ({KNN: 70.0, ENDED: True, SAMPLES: 320}, TrialState.COMPLETE),
            ({KNN: 70.0, SAMPLES: 320}, TrialState.PRUNED),  # stopped before its end: not to be compared
            ({LOSS: 1.0, ENDED: True, SAMPLES: 320}, TrialState.PRUNED),
            ({LOSS: 1.0, ENDED: False, SAMPLES: 320}, TrialState.PRUNED),  # failed
        ],
    )
    def test_only_a_whole_trial_has_a_value(
        self, both: Callable[..., SweepFile], tmp_path: Path, last: dict[str, Any], state: TrialState
    ) -> None:
        it, held = both(), journal(tmp_path, samples=1000)
        assert it.search
        searcher = OptunaSearcher(it.search, it.designs, held, lambda _: None, NOBODY)
        searcher.suggest("a")
        searcher.on_trial_complete("a", last)
        assert told(held).trials[0].state == state
        assert held.left == (19, 680, float("inf"))


def test_a_trial_makes_its_batches_as_it_was_planned_for(
    both: Callable[..., SweepFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plans = ProposedRuns(both().designs, tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")  # as in a trial's process
    assert {each.feeder for each in plans.defaults()} == {"threads"}


def test_a_trial_takes_other_codes_work_as_the_user_answered(both: Callable[..., SweepFile], tmp_path: Path) -> None:
    plans = ProposedRuns(both().designs, tmp_path, code="accept")
    assert {each.code for each in plans.defaults()} == {"accept"}


def test_a_trial_finds_data_from_where_the_user_stood(
    both: Callable[..., SweepFile], sets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(sets["train"])
    monkeypatch.chdir(folder.parent)
    plans = ProposedRuns(read(both().path, [f"data.train=./{folder.name}/"]).designs, tmp_path)
    monkeypatch.chdir(tmp_path)  # Tune's trials work in a folder of their own
    assert {each.train.root for each in plans.defaults()} == {sets["train"]}


class TestSpent:
    def test_a_trial_that_stays_at_chance_is_stopped_with_the_reason(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 100, stopped={}, over="", enough=False, fair=0)
        spent = BudgetStopper(watch, RemainingBudget(5, float("inf"), float("inf")))

        def report(step: int, loss: float) -> bool:
            return spent("a", {STEP: step, SAMPLES: step, TRAINED: False, LOSS: loss, "pretrain/chance": 4.0})

        assert not any(report(step, 4.0) for step in (2, 4, 6, 8, 10))  # a tenth of the training
        assert [report(step, loss) for step, loss in [(20, 3.99), (30, 3.5)]] == [False, False]
        assert [report(step, 4.01) for step in (40, 50, 60)] == [False] * (PATIENCE - 1) + [True]
        assert watch.stopped == {"a": "learns nothing: loss 4.01, 4 by chance, at step 60"}

    def test_so_is_one_whose_embeddings_are_all_the_same(self) -> None:
        assert collapsed({"pretrain/feature_std": 0.01, STEP: 40}) == "collapsed: feature std 0.01 < 0.05 at step 40"
        assert collapsed({"pretrain/rankme": 1.5, STEP: 40}) == "collapsed: RankMe 1.5 < 2 at step 40"
        assert collapsed({"pretrain/feature_std": 0.5, "pretrain/rankme": 9.0, LOSS: 4.0, STEP: 40}) == ""

    def test_the_budgets(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 100, stopped={}, over="", enough=False, fair=0)
        spent = BudgetStopper(watch, RemainingBudget(5, 300, float("inf")))
        for trial, samples in [("a", 100), ("b", 100), ("a", 199)]:
            spent(trial, {STEP: 1, SAMPLES: samples, TRAINED: False})
            assert not spent.stop_all()
        spent("b", {STEP: 1, SAMPLES: 101, TRAINED: False})
        assert spent.stop_all()
        assert watch.over == "the samples of the search were spent"
        assert BudgetStopper(watch, RemainingBudget(5, 300, -1)).stop_all()

    def test_failures_end_a_search_only_if_nothing_else_comes_of_it(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 100, stopped={}, over="", enough=True, fair=1)
        spent = BudgetStopper(watch, RemainingBudget(5, float("inf"), float("inf")))
        assert not spent.stop_all()
        watch.fair = 0
        assert spent.stop_all()


def asked(study: optuna.Study, it: SweepFile, plans: ProposedRuns) -> optuna.Trial:
    """A trial whose values make a spec: of most draws, a width that is no multiple of 4 does not."""
    while True:
        trial = study.ask()
        TrialSpace(it.designs)(trial)
        try:
            plans.of(trial.params)
        except SpecError:
            study.tell(trial, state=TrialState.FAIL)
        else:
            return trial


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_methods_and_two_metrics_from_an_interrupted_search_to_its_report(
    both: Callable[..., SweepFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_HOME", str(home := tmp_path / "home"))
    it = both(metric=[KNN, f"min {LOSS}"], trials=4, confirm=1)
    tracker = Tracker(f"sqlite:///{home / 'mlflow.db'}").connect()
    before, _ = lay_out(it, tracker)
    assert before.search
    held = Journal(it.search, it.name, before.digest, home)  # type: ignore[arg-type]
    plans = ProposedRuns(it.designs, home)
    lost = asked(told(held), it, plans)  # by a driver that was killed at once
    assert [entry.status for entry in statuses(it)] == ["pending"]

    arms, failed = conduct(it, tracker)
    assert failed == []
    found = report.read(arms, tracker)
    search = found.sweep.search
    assert search
    assert search.over
    assert len(search.ended) == 4
    assert plans.of(lost.params).id in [trial.result.id for trial in search.trials]
    values = {tuple(trial.metrics[name] for name in (KNN, LOSS)) for trial in search.best}
    assert values == {tuple(trial.values) for trial in told(held).best_trials}
    assert {arm.name for study in arms.studies for arm in study.arms} == {
        "default",
        *(trial.name for trial in search.finalists),
    }
    assert all(result.status == "done" and result.seed == 1 for result in found.results)
    assert all(entry.ended for entry in statuses(it))
    again, _ = conduct(it, tracker)  # nothing is left
    assert report.files(report.read(again, tracker), {}) == report.files(found, {})
    assert json.loads(tracker.runs("both", "tags.`selfsup.kind` = 'trial'")[0].data.tags["selfsup.drawn"])
