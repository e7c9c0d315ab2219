"""What stops a trial, and what does not: nothing whose training is over, and nobody for a record of the last step."""

import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.cloudpickle
from ray import tune

from selfsup.knob import Range
from selfsup.metrics_log import MetricsLog, Record, records
from selfsup.stage import Stage, digest
from selfsup.sweeps import driver, trial
from selfsup.sweeps.explore import BudgetStopper
from selfsup.sweeps.journal import Journal, RemainingBudget
from selfsup.sweeps.search import OptunaSearcher
from selfsup.sweeps.spec.search import PARTS, Search
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.stopping import AshaScheduler, scheduler
from selfsup.sweeps.trial import ENDED, PART, SAMPLES, STEP, TRAINED, report_at

LOSS, SCORE = "pretrain/loss", "eval/score/top1"
UNBOUNDED = RemainingBudget(99, float("inf"), float("inf"))
KINDS = ["asha", "median"]
NOBODY: Any = SimpleNamespace(stopped={}, over="")


class Live:
    """A trial, as a scheduler asks for it."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def run(steps: int, **more: Any) -> Any:
    told = {"probes": {}, "evals": {"knn": SimpleNamespace(has_curve=True)}, "due": range(0)} | more
    return SimpleNamespace(steps=steps, run=SimpleNamespace(seed=0, train=SimpleNamespace(batch=16)), **told)


def logged(path: Path, space: str = "pretrain") -> Any:
    """A stage with a log."""
    return SimpleNamespace(spool=path, space=space)


def ranked(kind: str) -> Search:
    return Search.model_validate({"metric": LOSS, "scheduler": kind})


def stopped_at(search: Search, steps: int, *, every: int, losses: list[float]) -> list[int]:
    """Return the step at which each of several trials, one after another, is stopped; `steps` for one that is not."""
    judge, ends = scheduler(search, (), NOBODY), []
    for number, loss in enumerate(losses):
        judge.on_trial_add(None, live := Live(str(number)))  # type: ignore[arg-type]
        for step in (*range(every, steps, every), steps):
            verdict = judge.on_trial_result(None, live, report_at(run(steps), step, {"loss": loss}))  # type: ignore[arg-type]
            if verdict == "STOP":
                break
        ends.append(step)
    return ends


class TestRungs:
    @pytest.mark.parametrize("steps", [*range(1, 130), 243, 300, 729, 999, 1000, 6561, 10**5, 10**6])
    def test_a_trial_behind_is_stopped_at_a_twenty_seventh_and_nobody_after_half(self, steps: int) -> None:
        """Budgets of one step to a million."""
        judge = scheduler(ranked("asha"), (), NOBODY)
        first = next(step for step in range(1, steps + 1) if 27 * step >= steps)

        def verdict(name: str, step: int, loss: float) -> str:
            judge.on_trial_add(None, live := Live(name))  # type: ignore[arg-type]
            return judge.on_trial_result(None, live, report_at(run(steps), step, {"loss": loss}))  # type: ignore[arg-type]

        early = 2 * first <= steps  # else nothing is judged
        assert [verdict("a", first, 1.0), verdict("b", first, 2.0)] == ["CONTINUE", "STOP" if early else "CONTINUE"]
        late = range(steps // 2 + 1, steps + 1)
        for step in {*late[:3], *late[-3:]}:
            assert verdict(f"c{step}", step, 9.0) == "CONTINUE"

    def test_they_are_three_whatever_the_budget(self) -> None:
        judge = scheduler(ranked("asha"), (), NOBODY)
        assert isinstance(judge, AshaScheduler)
        [bracket] = judge._brackets
        assert [milestone for milestone, _ in bracket._rungs] == [9, 3, 1]  # of 27 parts

    @pytest.mark.parametrize(
        ("gap", "steps"), [(2, 54), (6, 54), (8, 54), (20, 54), (3, 27), (1, 9), (40, 100), (60, 100)]
    )
    def test_a_plan_names_those_that_no_number_is_for(self, gap: int, steps: int) -> None:
        judge = scheduler(search := ranked("asha"), (), NOBODY)
        judge.on_trial_add(None, live := Live("a"))  # type: ignore[arg-type]
        for step in range(gap, steps, gap):
            judge.on_trial_result(None, live, report_at(run(steps), step, {"loss": 1.0}))  # type: ignore[arg-type]
        assert isinstance(judge, AshaScheduler)
        bare = [f"1/{PARTS // rung}" for rung, recorded in reversed(judge._brackets[0]._rungs) if not recorded]
        warning = search.unjudged(gap, steps)
        assert warning.endswith(f"has no number for {', '.join(bare)}" if bare and gap > 1 else "")
        assert bool(warning) == (bool(bare) and gap > 1)
        assert search.unjudged(max(1, steps // 10), steps) == ""

    def test_at_27_steps_they_lie_at_1_3_and_9(self) -> None:
        judge = scheduler(ranked("asha"), (), NOBODY)
        for name, worse_from in [("a", 99), ("b", 2), ("c", 4), ("d", 10)]:
            judge.on_trial_add(None, live := Live(name))  # type: ignore[arg-type]
            ends = next(
                (
                    step
                    for step in range(1, 28)
                    if judge.on_trial_result(  # type: ignore[arg-type]
                        None,  # type: ignore[arg-type]
                        live,  # type: ignore[arg-type]
                        report_at(run(27), step, {"loss": 2.0 if step >= worse_from else 1.0}),
                    )
                    == "STOP"
                ),
                27,
            )
            assert ends == {"a": 27, "b": 3, "c": 9, "d": 27}[name]

    def test_trials_of_other_lengths_are_compared_where_they_have_done_the_same_share(self) -> None:
        judge = scheduler(ranked("asha"), (), NOBODY)
        for name, steps in (("long", 2700), ("short", 270)):
            judge.on_trial_add(None, live := Live(name))  # type: ignore[arg-type]
            for step in range(10, steps // 2, 10):
                loss = 100 / (10 * step / steps)  # the same at the same share
                assert judge.on_trial_result(None, live, report_at(run(steps), step, {"loss": loss})) == "CONTINUE"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "every"), [(27, 1), (1000, 10), (20, 5), (7, 1)])
def test_what_falls_behind_is_stopped_in_the_first_half(kind: str, steps: int, every: int) -> None:
    ends = stopped_at(ranked(kind), steps, every=every, losses=[1.0] * 4 + [2.0] * 3)
    assert ends[:4] == [steps] * 4
    assert all(end <= steps / 2 for end in ends[4:])


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_trained_by_the_time_it_is_looked_at_is_compared_with_but_never_stopped(kind: str) -> None:
    judge = scheduler(ranked(kind), (), NOBODY)

    def verdicts(name: str, loss: float, *, trained: bool) -> set[str]:
        judge.on_trial_add(None, live := Live(name))  # type: ignore[arg-type]
        reports = [report_at(run(27), step, {"loss": loss}, trained=trained) for step in range(1, 27)]
        return {judge.on_trial_result(None, live, each) for each in reports}  # type: ignore[arg-type]

    assert [verdicts(str(number), 1.0 - number / 9, trained=True) for number in range(4)] == [{"CONTINUE"}] * 4
    assert verdicts("behind, but trained", 5.0, trained=True) == {"CONTINUE"}
    assert "STOP" in verdicts("behind", 5.0, trained=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_goes_on_from_the_trials_of_earlier_sessions(kind: str, tmp_path: Path) -> None:
    earlier = []
    for number, loss in enumerate([1.0, 2.0, 3.0, 0.5]):  # some of which it would stop today
        spool = MetricsLog(path := tmp_path / str(number))
        for step in (10, 20, 30, 90):
            spool.append(step, {"loss": loss})
        earlier.append(run(90, id=str(number), pretrain=logged(path)))

    def verdict(loss: float, past: list[Any]) -> str:
        judge, live = scheduler(ranked(kind), past, NOBODY), Live("now")
        judge.on_trial_add(None, live)  # type: ignore[arg-type]
        return judge.on_trial_result(None, live, report_at(run(90), 10, {"loss": loss}))  # type: ignore[arg-type]

    assert verdict(5.0, earlier) == "STOP"
    assert verdict(0.25, earlier) == verdict(5.0, []) == "CONTINUE"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["collapsed", "failed", "died", "well"])
def test_with_a_trial_that_came_to_nothing_no_other_is_compared(kind: str, how: str) -> None:
    """The least losses of all are of embeddings that are all the same."""
    verdicts: Any = SimpleNamespace(stopped={}, over="")
    judge: Any = scheduler(ranked(kind), (), verdicts)

    def verdict(live: Live, step: int, loss: float) -> str:
        return str(judge.on_trial_result(None, live, report_at(run(27), step, {"loss": loss})))

    for number in range(4):
        judge.on_trial_add(None, live := Live(str(number)))
        assert [verdict(live, step, -9.0) for step in (1, 2, 3)] == ["CONTINUE"] * 3
        last = report_at(run(27), 3, {"loss": -9.0})
        if how == "died":
            judge.on_trial_error(None, live)
            continue
        if how == "collapsed":
            verdicts.stopped[live.trial_id] = "collapsed"
        if how != "collapsed":
            assert judge.on_trial_result(None, live, last | {ENDED: how == "well"}) == "CONTINUE"
        judge.on_trial_complete(None, live, last)
    judge.on_trial_add(None, honest := Live("honest"))
    stopped = "STOP" in [verdict(honest, step, 1.0) for step in (1, 2, 3)]
    assert stopped == (how == "well")


class TestReports:
    def test_the_last_step_has_its_numbers_with_the_results_only(self, tmp_path: Path) -> None:
        spool = MetricsLog(tmp_path / "spool")
        over = threading.Event()
        work = threading.Thread(target=over.wait, daemon=True)
        work.start()
        progress = trial._progress(run(3, pretrain=logged(tmp_path / "spool")), work)
        spool.append(1, {"loss": 3.0})
        assert next(progress) == {STEP: 1, SAMPLES: 16, PART: 9.0, TRAINED: False, LOSS: 3.0}
        spool.append(2, {"loss": 2.0})
        spool.append(3, {"loss": 1.0})
        assert next(progress) == {STEP: 2, SAMPLES: 32, PART: 18.0, TRAINED: True, LOSS: 2.0}
        assert next(progress) == {STEP: 3, SAMPLES: 48, PART: 27.0, TRAINED: True}
        over.set()
        assert list(progress) == []

    def test_an_evaluation_comes_with_the_part_of_training_that_it_is_of(self, tmp_path: Path) -> None:
        spool, knn = MetricsLog(tmp_path / "spool"), MetricsLog(tmp_path / "knn")
        probes = {"knn": logged(tmp_path / "knn", "eval/knn")}
        toy = run(27, pretrain=logged(tmp_path / "spool"), probes=probes, due=range(3, 27, 3))
        for step in (3, 6, 9):
            spool.append(step, {"loss": 1.0})
        knn.append(3, {"top1": 50.0})
        [record] = records(tmp_path / "knn", committed=False)
        report = trial.report_of(toy, "eval/knn/", record)
        assert report == {STEP: 9, SAMPLES: 144, PART: 3.0, TRAINED: False, "eval/knn/top1": 50.0}

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_evaluations_what_falls_behind_at_a_rung_is_stopped(self, kind: str, tmp_path: Path) -> None:
        """They are due after a tenth each: four come in the first half. Losses are of no account."""
        judge: Any = scheduler(Search.model_validate({"metric": "eval/knn/top1", "scheduler": kind}), (), NOBODY)
        (tmp_path / "spool").touch()
        probes = {"knn": logged(tmp_path / "knn", "eval/knn")}
        toy = run(100, pretrain=logged(tmp_path / "spool"), probes=probes, due=range(10, 100, 10))

        def ends(name: str, top1: float) -> int:
            judge.on_trial_add(None, live := Live(name))
            for step in range(10, 100, 10):
                assert judge.on_trial_result(None, live, report_at(run(100), step - 5, {"loss": top1})) == "CONTINUE"
                report = trial.report_of(toy, "eval/knn/", Record(step, 0, {"top1": top1}))
                if judge.on_trial_result(None, live, report) == "STOP":
                    return step
            return 100

        assert [ends(str(number), 80.0) for number in range(4)] == [100] * 4
        assert ends("behind", 60.0) <= 40
        assert ends("ahead", 90.0) == 100

    def test_a_report_of_an_evaluation_is_no_sign_of_health(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 27, stopped={}, over="", enough=False, fair=0)
        spent, flat = BudgetStopper(watch, UNBOUNDED), {"loss": 4.0, "chance": 4.0}
        for step in range(4, 7):
            assert spent("a", report_at(run(27), step, flat)) == (step == 6)
            assert not spent("a", report_at(run(27), step, {}) | {"eval/knn/top1": 50.0})

    def test_a_spent_budget_leaves_what_has_trained_to_its_evaluation(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 3, stopped={}, over="", enough=False, fair=0)
        spent = BudgetStopper(watch, RemainingBudget(9, 90, float("inf")))
        assert not spent("a", report_at(run(3), 3, {}, trained=True))
        assert not spent("b", report_at(run(3), 2, {}))
        assert not spent.stop_all()
        assert not spent("b", report_at(run(3), 3, {}, trained=True))
        assert not spent("c", report_at(run(3), 1, {}))
        assert not spent.stop_all()  # spent, but a and b are being evaluated
        assert spent("c", report_at(run(3), 2, {}))
        for name in "ab":
            assert not spent(name, report_at(run(3), 3, {"loss": 1.0}, trained=True) | {ENDED: True})
        assert spent.stop_all()

    def test_nor_is_it_ended_for_having_collapsed(self) -> None:
        watch: Any = SimpleNamespace(steps=lambda _: 27, stopped={}, over="", enough=False, fair=0)
        spent = BudgetStopper(watch, UNBOUNDED)
        flat = {"loss": 4.0, "chance": 4.0}
        assert not any(spent("a", report_at(run(27), step, flat, trained=True)) for step in range(1, 28))
        assert any(spent("b", report_at(run(27), step, flat)) for step in range(1, 27))


class Toy(SimpleNamespace):
    """A run of 27 steps without a network: its last loss tells it apart, and above 0.8 all others, too."""

    steps, probes, due, means = PARTS, {}, range(0), {}

    @property
    def id(self) -> str:
        return f"toy-{digest(self.drawn)}"

    @property
    def pretrain(self) -> Stage:
        return Stage("pretrain", {"drawn": self.drawn}, {}, self.home)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.pretrain, Stage("score", {"drawn": self.drawn}, {}, self.home)

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def failure(self) -> Path:
        return Path(self.home) / f"{self.id}.failure"


def train(each: Toy, stage: Stage) -> dict[str, float]:
    from time import sleep

    spool = MetricsLog(stage.spool)
    for step in range(1, PARTS + 1):
        sleep(0.06)
        spool.append(step, {"loss": each.drawn if step == PARTS else 1.0 + (each.drawn > 0.8)})
    return {}


def score(each: Toy, _: Stage) -> dict[str, float]:
    from time import sleep

    sleep(1.5)  # in which its driver looks at its records
    return {"top1": 100 * (1 - each.drawn)}


def bring(each: Toy) -> None:
    for stage, work in zip(each.stages, (train, score), strict=True):
        if not stage.done:
            stage.claim()
            stage.finish(work(each, stage))


class Toys:
    """Their work takes the place of a run's in whatever process asks for one."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def of(self, config: dict[str, Any]) -> Any:
        trial.perform = bring  # type: ignore[assignment]
        return Toy(drawn=config["0.drawn"], home=self.home, run=run(PARTS).run)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", KINDS)
def test_on_tune_all_that_trains_to_its_end_is_evaluated(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last step each is worse than some other: a rung there would stop it while it is being evaluated."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(trial, "perform", bring)
    search = Search.model_validate(
        {"metric": SCORE, "sampler": "random", "scheduler": kind, "rank": f"min {LOSS}", "trials": 8}
    )
    design: Any = SimpleNamespace(space=(Dimension("drawn", Range(0.0, 1.0), integer=False),))
    journal = Journal(search, "toy", "key", tmp_path)
    ended = Counter[str]()
    recorder: Any = SimpleNamespace(begin=lambda _: None, end=lambda *told: ended.update([told[2][:11]]))
    watch = driver.TrialMonitor(Toys(tmp_path), recorder)
    config = tune.TuneConfig(
        num_samples=search.trials,
        max_concurrent_trials=2,
        search_alg=OptunaSearcher(search, [design], journal, lambda _: None, watch),
        scheduler=scheduler(search, (), watch),
    )
    driver.fit(watch, BudgetStopper(watch, UNBOUNDED), config, {}, tmp_path)
    drawn = [each.params["0.drawn"] for each in journal._trials()]
    behind = sum(value > 0.8 for value in drawn)
    assert 0 < behind < len(drawn) - 3
    assert ended == {"": len(drawn) - behind, "fell behind": behind}
