"""A plan as it was registered, and every way in which a later one may differ from it."""

import json
from dataclasses import replace

import toy_sweep

from selfsup.sweeps.registration import RegisteredPlan, changes, looks, read, written
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.trials import SearchResult

KNN, LINEAR = toy_sweep.KNN, toy_sweep.LINEAR


def toy(*arms: str, digest: str = "n3w", metrics: tuple[str, ...] = (KNN,), seeds: int = 2) -> Sweep:
    """Return a sweep of a default and these mask ratios."""
    study, _ = toy_sweep.study({name: [0.0] * seeds for name in ("0.75, 8", *arms)})
    return replace(toy_sweep.sweep(study), digest=digest, metrics=metrics, seeds=tuple(range(seeds)))


def since(before: Sweep, now: Sweep) -> list[str]:
    """What is told of the change, without its first words."""
    plans = [read(written(before), 0), read(written(now), 60_000)]
    told = list(changes(now, plans))
    assert all(line.startswith(f"since the plan {before.digest} of 1970-01-01 00:00 UTC: ") for line in told)
    return [line.partition("UTC: ")[2] for line in told]


OLD = toy("0.5, 8", "0.9, 8", digest="0ld")


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = read(written(OLD), 7)
    arms = {f"mae: {arm.name}": dict(arm.ids) for arm in OLD.studies[0].arms}
    assert plan == RegisteredPlan("0ld", 7, arms, (KNN,))
    told = json.loads(written(OLD))
    assert told["question"] == "Does it hold?"
    assert "Dunnett" in told["tests"][0]
    assert told["primary"] == ""
    assert told["stop"]


def test_the_plan_of_a_search_is_its_budget() -> None:
    search = Search.model_validate({"metric": "eval/knn/top1", "trials": 7})
    told = json.loads(written(replace(OLD, studies=(), search=SearchResult(search, {}, {}, (), over=False))))
    assert (told["arms"], told["search"]["trials"]) == ({}, 7)
    assert "fresh seeds" in told["stop"]


def test_the_same_plan_is_no_change_nor_is_a_later_one() -> None:
    plans = [read(written(OLD), 5), read(written(toy("0.5, 8")), 9)]
    assert list(changes(OLD, plans)) == []
    assert list(changes(OLD, [])) == []


def test_a_plan_that_was_never_registered_comes_after_all_others() -> None:
    [line] = changes(toy("0.5, 8"), [read(written(OLD), 0)])
    assert line.endswith("dropped arm mae: mask_ratio=0.9")


def test_arms_that_went_and_came() -> None:
    assert since(OLD, toy("0.5, 8", "0.6, 8", "0.7, 8")) == [
        "dropped arm mae: mask_ratio=0.9; added arms mae: mask_ratio=0.6 and mae: mask_ratio=0.7"
    ]


def test_seeds_that_went_and_came() -> None:
    assert since(OLD, toy("0.5, 8", "0.9, 8", seeds=4)) == ["added seeds 2 and 3"]
    assert since(OLD, toy("0.5, 8", "0.9, 8", seeds=1)) == ["dropped seed 1"]


def test_seeds_of_one_arm_alone_are_told_with_its_name() -> None:
    now = toy("0.5, 8", "0.9, 8")
    default, *others = now.studies[0].arms
    fewer = replace(default, ids={0: default.ids[0]})
    now = replace(now, studies=(replace(now.studies[0], arms=(fewer, *others)),))
    assert since(OLD, now) == ["dropped seed 1 of mae: default"]


def test_metrics_that_went_and_came() -> None:
    assert since(OLD, toy("0.5, 8", "0.9, 8", metrics=(LINEAR,))) == [
        "dropped metric knn top-1; added metric linear top-1"
    ]


def test_other_settings_under_the_same_name() -> None:
    now = toy("0.5, 8", "0.9, 8")
    arms = tuple(Arm(arm.name, arm.values, arm.changed, {0: "x", 1: "y"}) for arm in now.studies[0].arms[:1])
    now = replace(now, studies=(replace(now.studies[0], arms=arms + now.studies[0].arms[1:]),))
    assert since(OLD, now) == ["settings changed, though not the name, of mae: default"]


def test_a_look_is_an_earlier_plan_with_fewer_seeds_of_the_same_arms() -> None:
    two, three, four = (toy("0.5, 8", digest=f"d{seeds}", seeds=seeds) for seeds in (2, 3, 4))
    plans = [read(written(sweep), time) for time, sweep in enumerate((two, three, four))]
    assert [looks(sweep, plans) for sweep in (two, three, four)] == [0, 1, 2]
    assert looks(four, [*plans, plans[0]._replace(digest="again", metrics=(LINEAR,))]) == 2  # the same seeds again
    assert looks(four, []) == 0


def test_other_arms_and_other_settings_are_no_look() -> None:
    now = toy("0.5, 8", "0.9, 8", seeds=3)
    fewer_arms = read(written(toy("0.5, 8", digest="0ld", seeds=3)), 0)
    assert looks(now, [fewer_arms]) == 0
    others = read(written(toy("0.5, 8", digest="0ld", seeds=2)), 0)
    others = others._replace(arms={name: {0: f"other-{name}"} for name in others.arms})
    assert looks(now, [others]) == 0


def test_another_primary_metric_than_was_registered_is_told() -> None:
    plan = read(written(replace(OLD, primary=KNN)), 0)
    assert plan.primary == KNN
    assert list(changes(replace(OLD, primary=KNN), [plan])) == []
    assert list(changes(OLD, [plan])) == ["since it was registered: the primary metric was knn top-1, and is none"]
