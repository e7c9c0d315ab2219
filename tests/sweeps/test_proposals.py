"""What TPE learns of trials that are stopped: searches simulated in time, with Optuna and Tune's ASHA as they are."""

import heapq
import math
import random
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.utils import flatten_dict

from selfsup.errors import CodeError, SpecError
from selfsup.failures import classify
from selfsup.knob import Range
from selfsup.sweeps.journal import FLAWED, Journal
from selfsup.sweeps.search import OptunaSearcher
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.stopping import scheduler
from selfsup.sweeps.trial import ENDED, FAILURE, PART, PARTS, SAMPLES, STEP, TRAINED

KNN, LOSS, SECONDS = "eval/knn/top1", "pretrain/loss", "pretrain/seconds"
RANGES = {"rate": Range(1e-4, 1.0, log=True), "ratio": Range(0.0, 1.0), "width": Range(0.0, 1.0)}
DESIGN: Any = SimpleNamespace(space=tuple(Dimension(name, held, integer=False) for name, held in RANGES.items()))
BY_CHANCE = 0.927  # mean excess of random draws: of (u - c)**2, u from 0 to 1, it is 1/3 - c + c**2

Values = dict[str, float]


class InMemory(Journal):
    """Without a file, which would take most of the time."""

    def __init__(self, search: Search) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.storage = "toy", InMemoryStorage()  # type: ignore[assignment]
        directions = ["minimize" if mode == "min" else "maximize" for mode in search.objectives.values()]
        self._study = optuna.create_study(storage=self.storage, study_name=self.name, directions=directions)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._trials()


def excess(values: Values) -> float:
    """By how much the loss of a whole training misses the least."""
    rate, ratio, width = math.log10(values["0.rate"]) / 4 + 1, values["0.ratio"], values["0.width"]
    return 4 * (ratio - 0.7) ** 2 + 2 * (width - 0.3) ** 2 + 2 * (rate - 0.6) ** 2


def collapses(values: Values) -> bool:
    return values["0.ratio"] > 0.9


def reports(values: Values, luck: float) -> list[dict[str, Any]]:
    """How fast a trial begins is luck, where it ends is not; one that collapses has the least loss of all."""
    made = []
    for step in range(1, PARTS + 1):
        loss = -5.0 if collapses(values) else excess(values) + 1.5 * (1 - step / PARTS) ** 2 * (1 + 0.3 * luck)
        made.append({STEP: step, SAMPLES: step, PART: step, TRAINED: False, LOSS: loss})
    made[-1] |= {KNN: 100 - 20 * excess(values), SECONDS: 1 + values["0.width"], ENDED: True}
    return made


def simulate(search: Search, *, at_once: int) -> tuple[list[Values], list[FrozenTrial]]:
    """What was drawn, in order; and the trials as Optuna has them. Each of them has a speed of its own."""
    journal, verdicts = InMemory(search), SimpleNamespace(stopped={}, over="")
    searcher = OptunaSearcher(search, [DESIGN], journal, lambda _: None, verdicts)
    judge, luck, drawn, due = scheduler(search, (), verdicts), random.Random(search.seed), list[Values](), list[Any]()

    def begin(now: float) -> None:
        name = str(len(drawn))
        values: Any = searcher.suggest(name)
        live = type("Live", (), {"trial_id": name})()
        judge.on_trial_add(None, live)  # type: ignore[arg-type]
        drawn.append(values)
        heapq.heappush(due, (now, name, live, luck.uniform(0.5, 1.5), iter(reports(values, luck.gauss(0, 1)))))

    def goes_on(name: str, live: Any, result: dict[str, Any]) -> bool:
        if collapses(drawn[int(name)]) and result[STEP] == 6:
            verdicts.stopped[name] = "collapsed"
        verdict = judge.on_trial_result(None, live, result)  # type: ignore[arg-type]
        if over := ENDED in result or name in verdicts.stopped or verdict == "STOP":
            judge.on_trial_complete(None, live, result)  # type: ignore[arg-type]
            searcher.on_trial_complete(name, result)
        return not over

    for number in range(at_once):
        begin(number / at_once)
    while due:
        now, name, live, speed, left = heapq.heappop(due)
        if goes_on(name, live, next(left)):
            heapq.heappush(due, (now + speed, name, live, speed, left))
        elif len(drawn) < search.trials:
            begin(now)
    return drawn, journal.trials


def asked(seed: int = 0, trials: int = 60, **more: Any) -> Search:
    section = {"metric": KNN, "sampler": "tpe", "scheduler": "asha", "rank": f"min {LOSS}", "trials": trials}
    return Search.model_validate(section | {"seed": 1000 * seed} | more)


def late(at_once: int, seeds: int) -> float:
    """Mean excess of the last ten draws."""
    runs = (simulate(asked(seed), at_once=at_once)[0] for seed in range(seeds))
    return fmean(excess(values) for drawn in runs for values in drawn[-10:])


def test_random_draws_are_as_good_as_we_say() -> None:
    draw = random.Random(0).random
    values = [{"0.rate": 10 ** (-4 * draw()), "0.ratio": draw(), "0.width": draw()} for _ in range(4000)]
    assert fmean(map(excess, values)) == pytest.approx(BY_CHANCE, rel=0.05)


def test_with_eight_at_once_tpe_proposes_what_is_better_than_random() -> None:
    assert late(8, seeds=4) < 0.5 * BY_CHANCE


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [2, 4, 8])
def test_so_it_does_however_many_run_at_once(at_once: int) -> None:
    assert late(at_once, seeds=20) < 0.45 * BY_CHANCE


class TestWhatOptunaIsTold:
    def tell(self, result: dict[str, Any], *, collapsed: bool = False, **search: Any) -> FrozenTrial:
        journal = InMemory(held := asked(**search))
        verdicts = SimpleNamespace(stopped={"a": "collapsed"} if collapsed else {}, over="")
        searcher = OptunaSearcher(held, [DESIGN], journal, lambda _: None, verdicts)
        searcher.suggest("a")
        searcher.on_trial_complete("a", {STEP: 40, SAMPLES: 640, PART: 3.2, TRAINED: False} | result)
        return journal.trials[0]

    def test_of_a_stopped_trial_how_far_it_came_and_how_it_stood(self) -> None:
        told = self.tell({LOSS: 1.5})
        assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {3: -1.5})  # top-1 is to rise
        assert self.tell({"pretrain/rankme": 9.0}, rank="pretrain/rankme").intermediate_values == {3: 9.0}
        assert self.tell({LOSS: 1.5}, metric=LOSS).intermediate_values == {3: 1.5}
        assert self.tell({"pretrain/rankme": 9.0}, metric=LOSS, rank="pretrain/rankme").intermediate_values == {3: -9.0}

    @pytest.mark.parametrize(
        "result", [{LOSS: 0.1, ENDED: False}, {LOSS: math.nan}, {KNN: math.nan, LOSS: 0.1, ENDED: True}]
    )
    def test_of_one_that_failed_nothing(self, result: dict[str, Any]) -> None:
        told = self.tell(result)
        assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {})

    def test_one_that_met_what_other_code_made_is_proposed_again_once_the_user_has_answered(
        self, tmp_path: Path
    ) -> None:
        """And counts no more than one that was interrupted."""
        journal = Journal(held := asked(), "toy", "key", tmp_path)
        searcher = OptunaSearcher(held, [DESIGN], journal, lambda _: None, SimpleNamespace(stopped={}, over=""))
        drawn, other = searcher.suggest("a"), searcher.suggest("b")
        done = {STEP: 0, SAMPLES: 0, PART: 0, TRAINED: True, ENDED: False}
        for name, error in [("a", CodeError("1 stage was made by other code")), ("b", SpecError("else"))]:
            searcher.on_trial_complete(name, flatten_dict(done | {FAILURE: classify(error)._asdict()}))
        journal = Journal(held, "toy", "key", tmp_path)
        assert journal.configs == [other]
        assert journal.left.trials == held.trials - 1
        journal.resume()
        searcher = OptunaSearcher(held, [DESIGN], journal, lambda _: None, SimpleNamespace(stopped={}, over=""))
        assert searcher.suggest("again") == drawn
        assert searcher.suggest("next") != drawn

    def test_of_one_that_collapsed_nothing(self) -> None:
        told = self.tell({LOSS: -5.0}, collapsed=True)
        assert (told.state, told.intermediate_values) == (TrialState.PRUNED, {})
        assert told.user_attrs[FLAWED]


def test_where_all_have_collapsed_so_far_tpe_looks_elsewhere() -> None:
    """It would take one of them for the good one, and draw round it."""
    drawn = []
    for seed in range(6):
        journal, draw = InMemory(search := asked(seed)), random.Random(seed).random
        verdicts = SimpleNamespace(stopped={str(number): "collapsed" for number in range(12)}, over="")
        searcher = OptunaSearcher(search, [DESIGN], journal, lambda _: None, verdicts)
        for name in verdicts.stopped:
            bad = {"0.rate": 10 ** (-4 * draw()), "0.ratio": 0.8 + 0.2 * draw(), "0.width": draw()}
            journal._study.enqueue_trial(bad)
            searcher.suggest(name)
            searcher.on_trial_complete(name, {STEP: 6, SAMPLES: 6, PART: 6, TRAINED: False, LOSS: -5.0})
        drawn += [searcher.suggest(f"next-{number}") for number in range(10)]
    assert fmean(values["0.ratio"] > 0.8 for values in drawn) < 0.1  # 0.2 by chance


def test_gp_is_told_that_a_flawed_trial_is_as_bad_as_the_worst() -> None:
    """It knows of trials with a value only, and would propose the same again."""
    journal = InMemory(search := Search.model_validate({"metric": [KNN, SECONDS], "sampler": "gp"}))
    searcher = OptunaSearcher(search, [DESIGN], journal, lambda _: None, SimpleNamespace(stopped={}, over=""))
    done = {STEP: 27, SAMPLES: 27, PART: 27, TRAINED: True, ENDED: True}
    for name, more in [("early", {ENDED: False}), ("a", {KNN: 60.0, SECONDS: 2.0}), ("b", {KNN: 50.0, SECONDS: 1.0})]:
        searcher.suggest(name)
        searcher.on_trial_complete(name, done | more)
    searcher.suggest("flawed")
    searcher.on_trial_complete("flawed", done | {ENDED: False})
    early, *_, last = journal.trials
    assert early.state == TrialState.PRUNED  # nothing to compare with yet
    assert (last.state, last.values) == (TrialState.COMPLETE, [50.0, 2.0])
    assert last.user_attrs[FLAWED]
