"""A report of a search: which trials are best, what its knobs matter, what it says at every stage, in every format."""

import itertools
import random
from dataclasses import replace
from typing import Any

import optuna
import pytest
from test_page import Strict
from toy_search import KIND, KNN, RATE, RATIO, SECONDS, SPACE, simple, sweep, trial
from toy_search import searched as made

from selfsup.knob import Choice, Range
from selfsup.sweeps.report import files, paper, searching
from selfsup.sweeps.report.importance import FEWEST, TOP, importance, num_best
from selfsup.sweeps.report.searchplots import drawings
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.trials import SearchResult, front

optuna.logging.set_verbosity(optuna.logging.WARNING)
BOTH = (KNN, f"min {SECONDS}")


def whole(found: SearchResult, fresh: dict[str, list[float]] | None = None) -> Ablation:
    return ablation(*sweep(found, fresh))


class TestRanking:
    def test_only_results_of_the_metric_are_ranked(self) -> None:
        found = simple([{KNN: 50.0}, "fell behind", {KNN: 70.0}, {SECONDS: 9.0}, {KNN: float("nan")}, {KNN: 70.0}])
        assert [each.name for each in found.ranked] == ["trial 3", "trial 6", "trial 1"]  # of equals the earlier
        assert [each.name for each in found.best] == [each.name for each in found.finalists] == ["trial 3"]

    def test_least_may_be_best(self) -> None:
        found = simple([{SECONDS: 5.0}, {SECONDS: 4.0}, {SECONDS: 6.0}], metric=SECONDS)
        assert [each.number for each in found.ranked] == [2, 1, 3]

    def test_the_front_is_optunas(self) -> None:
        draw = random.Random(0)
        points = [tuple(draw.randint(0, most) for most in (30, 30, 5)) for _ in range(60)]
        points += points[:30]  # of two alike neither beats the other
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
        study.add_trials([optuna.trial.create_trial(values=point) for point in points])
        kept = {number for number, keep in enumerate(front(points, ["max", "min", "min"])) if keep}
        assert kept == {each.number for each in study.best_trials}
        assert 3 < len(kept) < 50

    def test_of_a_front_its_ends_and_what_lies_evenly_between_go_on(self) -> None:
        outcomes = [{KNN: 90.0 - i, SECONDS: 20.0 - i} for i in range(9)] + [{KNN: 50.0, SECONDS: 19.0}]
        found = simple(outcomes, metric=BOTH, finalists=3)
        assert [each.number for each in found.best] == list(range(1, 10))
        assert [each.number for each in found.finalists] == [1, 5, 9]
        assert [each.number for each in simple(outcomes[:2], metric=BOTH).finalists] == [1, 2]
        assert simple(["fell behind"], metric=BOTH).finalists == []


def taken(found: SearchResult) -> int:
    """How many trials Optuna's evaluator takes for the best."""
    numbers: list[int] = []
    evaluator = optuna.importance.PedAnovaImportanceEvaluator
    own = evaluator._get_top_quantile_trials

    def counted(self: Any, study: Any, trials: Any, quantile: float, target: Any) -> Any:
        best = own(self, study, trials, quantile, target)
        numbers.append(len(best))
        return best

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "_get_top_quantile_trials", counted)
        importance(found)
    return min(numbers)


class TestImportance:
    def test_it_is_optunas_own_number_for_the_search_it_ran(self) -> None:
        """Optuna runs a search of all kinds of knobs; we rebuild it from what a report is told."""
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))

        def objective(asked: optuna.Trial) -> float:
            ratio, rate = asked.suggest_float(RATIO, 0.4, 0.9), asked.suggest_float(RATE, 1e-4, 1e-2, log=True)
            return -abs(ratio - 0.6) - 0.01 * rate + 0.02 * asked.suggest_categorical(KIND, [0, 1])

        study.optimize(objective, n_trials=80)
        kinds = ("cosine", "linear")
        found = made(
            trial(i, each.params | {KIND: kinds[each.params[KIND]]}, {KNN: each.values[0]})
            for i, each in enumerate(study.trials, 1)
        )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=8 / 80)
        expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
        assert importance(found) == pytest.approx(expected)
        assert next(iter(importance(found))) == RATIO

    def test_a_knob_of_one_study_of_several_is_named_after_it(self) -> None:
        draw = random.Random(0)
        space = {"mae": SPACE[:1], "simclr": (Dimension("hyper.width", Range(1, 8), integer=True),)}
        trials = []
        for number in range(1, 41):
            study, path = draw.choice([("mae", RATIO), ("simclr", "hyper.width")])
            value = draw.uniform(0.4, 0.9) if study == "mae" else draw.randint(1, 8)
            score = 100 * value if study == "mae" else 0.0
            trials.append(trial(number, {path: value}, {KNN: score}, study))
        found = importance(made(trials, space=space))
        assert list(found) == ["mae: hyper.mask_ratio", "simclr: hyper.width"]
        assert found["mae: hyper.mask_ratio"] > 0.9

    def test_too_few_trials_say_nothing(self) -> None:
        assert importance(simple([{KNN: float(i)} for i in range(FEWEST - 1)])) == {}
        assert importance(simple([{KNN: float(i)} for i in range(FEWEST)]))
        assert TOP <= FEWEST / 2

    @pytest.mark.parametrize("metric", [KNN, BOTH])
    def test_where_all_results_are_equal_nothing_is_drawn(self, metric: object) -> None:
        found = simple([{KNN: 93.75, SECONDS: 2.0}] * 20, metric=metric)
        assert importance(found) == {}
        said = "Which knobs matter is not told: no trial is better than the others."
        assert said in searching.sentences(whole(found))
        assert {drawing.kind for drawing in drawings(found)} >= {"history", "coordinates"}
        assert "importance" not in {drawing.kind for drawing in drawings(found)}

    @pytest.mark.parametrize("number", [10, 57, 60, 157, 159, 318])
    def test_a_tenth_counts_as_the_best_and_five_at_least(self, number: int) -> None:
        """15 / 157 * 157 is more than 15 in binary."""
        settings = {RATE: 1e-3, KIND: "linear"}
        found = made(trial(i, settings | {RATIO: 0.4 + i / 1000}, {KNN: float(i)}) for i in range(number))
        assert taken(found) == num_best(found) == max(5, number // 10)

    def test_with_them_count_those_that_equal_the_last_of_them(self) -> None:
        found = simple([{KNN: value} for value in [9.0, 8.0, 7.0] + [6.0] * 8 + [5.0] * 9])
        assert taken(found) == num_best(found) == 11
        [caption] = [drawing.caption for drawing in drawings(found) if drawing.kind == "importance"]
        assert caption.startswith("What sets the best 11 of 20 trials apart")
        assert importance(simple([{KNN: value} for value in [9.0] + [6.0] * 11])) == {}

    def test_a_list_may_be_chosen(self) -> None:
        space = {"mae": (Dimension("optim.betas", Choice((0.9, 0.95), (0.9, 0.999)), integer=False),)}
        betas = [[0.9, 0.95], [0.9, 0.999]]  # as JSON has them
        found = made([trial(i, {"optim.betas": betas[i % 2]}, {KNN: float(i % 2)}) for i in range(12)], space=space)
        assert importance(found) == {"optim.betas": 1.0}
        assert files.files(whole(found), {})


class TestStages:
    def test_before_any_result(self) -> None:
        found = whole(simple(["learns nothing: loss 3.1"], over=False))
        assert searching.sentences(found) == ["No trial came to a result so far."]
        assert searching.about(found.sweep.search)["Trials"] == "1: 0 with a result, 1 stopped"
        assert files.files(found, {})

    def test_while_it_goes_on(self) -> None:
        found = whole(
            simple([{KNN: 70.0}, "fell behind", {KNN: 75.25}], over=False, scheduler="asha", rank="pretrain/loss")
        )
        said = searching.sentences(found)
        assert said[0] == "The best of 2 so far by knn top-1 is trial 3 with 75.25."
        assert said[-1] == searching.CURSE  # before anything is confirmed, too
        about = searching.about(found.sweep.search)
        assert about["Budget"] == "20 trials: the search goes on"
        assert about["How"] == (
            "tpe proposes, from seed 0 (it would draw the same again in one session if trials ended in the same "
            "order); asha stops what falls behind in pretrain/loss"
        )
        resumed = replace(found.sweep.search, sessions=2)
        assert "from seed 0 (in 2 sessions; in one it would have drawn others)" in searching.about(resumed)["How"]
        assert found.tables == ()

    def test_the_winner_beside_what_it_won_with(self) -> None:
        found = whole(
            simple([{KNN: 70.0}, {KNN: 75.25}]), {"default": [70.0, 72.0, 71.0], "trial 2": [73.0, 72.0, 74.0]}
        )
        first, _, fresh, curse = searching.sentences(found)
        assert first == "The best of 2 by knn top-1 is trial 2 with 75.25."
        assert fresh.startswith("Trial 2 from 3 fresh seeds: knn top-1 73.0 ± ")
        assert fresh.endswith(", in the search 75.25 (-2.2).")  # 73 - 75.25, to the place of the interval
        assert "too good" in curse
        assert [line.label for line in found.tables[0].lines] == ["spec values", "trial 2"]
        assert found.tables[0].lines[1].cells[KNN].difference == pytest.approx(2)
        assert found.integrity["differences"] == {"mae: trial 2": ()}

    def test_fresh_seeds_of_a_winner_that_diverged_are_told(self) -> None:
        sweep_, results = sweep(
            simple([{KNN: 70.0}, {KNN: 75.25}]), {"default": [70.0, 72.0, 71.0], "trial 2": [73.0, 72.0, 74.0]}
        )
        lost = replace(results[-1], status="failed", reason="non-finite: loss is nan", metrics={})
        found = ablation(sweep_, [*results[:-1], lost])
        fresh = searching.sentences(found)[2]
        assert fresh.startswith("Trial 2 from 3 fresh seeds: knn top-1 72.5 ± ")
        assert "(n = 2; 1 of 3 seeds diverged), in the search 75.25" in fresh
        gone = [replace(lost, id=each.id, seed=each.seed) if "trial 2" in each.id else each for each in results]
        fresh = searching.sentences(ablation(sweep_, gone))[2]
        assert fresh.startswith("Trial 2 from 3 fresh seeds: knn top-1 – (n = 0; 3 of 3 seeds diverged), in the search")

    def test_a_front(self) -> None:
        outcomes = [{KNN: 80.0, SECONDS: 30.0}, {KNN: 70.0, SECONDS: 10.0}, {KNN: 60.0, SECONDS: 20.0}]
        found = whole(simple(outcomes, metric=BOTH))
        said = "Trials 1 and 2 are the Pareto front of 3 in knn top-1 and pretrain seconds."
        assert searching.sentences(found)[0] == said
        [block] = searching.blocks(found)
        assert (block.title, block.columns[0].texts) == ("Pareto front", ["default", "1", "2"])


@pytest.fixture(scope="module")
def found() -> Ablation:
    outcomes = [{KNN: 60.0 + i, SECONDS: 10.0 + i} for i in range(12)]
    search = simple([*outcomes, "fell behind <the> others at step 10"])
    return whole(search, {"default": [60.0, 62.0, 64.0], "trial 12": [68.0, 70.0, 69.0]})


class TestFormats:
    def test_the_same_bytes_each_time(self, found: Ablation) -> None:
        first, second = files.files(found, {}), files.files(found, {})
        assert first == second
        figures = {"history", "importance", "coordinates", "mae-effects"}
        assert {name for name in first if name.startswith("figures/")} == {
            f"figures/{name}.{kind}" for name, kind in itertools.product(figures, ("png", "svg"))
        }

    def test_the_page(self, found: Ablation) -> None:
        root = Strict(files.files(found, {})["report.html"].decode()).root
        words = root.words()
        assert "fell behind <the> others at step 10" in words  # as text
        assert "12 with a result, 1 stopped" in words
        assert "mask ratio 0.4 to 0.9; lr 0.0001 to 0.01, log; schedule cosine, linear" in words
        rows = [row.words().split() for row in root.every("tr")]
        assert ["12", "0.79", "0.001", "linear", "71.00"] in rows
        fresh = ["12", "71.00", "69.0", "±", "2.5", "-2.0", "3"]  # 4.303 * sqrt(1 / 3): its own three
        assert fresh in rows

    def test_trials_are_told_apart_in_the_long_table(self, found: Ablation) -> None:
        frame = paper.frame(found).to_pandas()
        assert frame.groupby("kind")["id"].nunique().to_dict() == {"run": 6, "trial": 13}
        lost = frame[(frame.arm == "trial 13") & (frame.metric == KNN)]
        assert lost[["status", "reason"]].to_numpy().tolist() == [["stopped", "fell behind <the> others at step 10"]]
        assert lost.value.isna().all()
        own = frame[(frame.arm == "trial 12") & (frame.metric == KNN)]
        assert own.groupby("kind")["value"].mean().to_dict() == {"run": 69.0, "trial": 71.0}

    def test_paper_and_terminal(self, found: Ablation) -> None:
        assert "trial 12" in paper.latex(found)
        text = paper.console(found).splitlines()
        assert text[text.index("best trials") + 3].split() == ["12", "0.79", "0.001", "linear", "71.00"]
        assert "| 12 | 0.79 | 0.001 | linear | 71.00 |" in paper.markdown(found)
