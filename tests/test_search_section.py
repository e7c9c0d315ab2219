"""Sweep files with a search: what is searched, and the text of every mistake in one, written by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_methods import registered
from toy_sweepfiles import CONTRAST, MASKED, METHODS, Masked, refused, sweep

from selfsup.errors import SpecError
from selfsup.knob import Choice, Range
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.study import Factor


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(METHODS, monkeypatch):
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("masked.yaml").write_text(MASKED)
    Path("contrast.yaml").write_text(CONTRAST)


class TestSearch:
    TEXT = """\
extends: masked.yaml
hyper: {mask_ratio: {search: auto}, heads: {search: {low: 1, high: 2}}}
optim: {lr: {search: {low: 1e-4, high: 1e-2, log: true}}, name: {search: [sgd, lars]}}
search: {metric: [eval/knn/top1, min pretrain/seconds], sampler: nsga2}
"""

    def test_values_are_searched_where_they_stand(self) -> None:
        it = sweep(self.TEXT)
        assert it.kind == "search"
        assert set(it.designs[0].space) == {
            Dimension("hyper.mask_ratio", Range(0.4, 0.9), False),
            Dimension("hyper.heads", Range(1, 2), True),
            Dimension("optim.lr", Range(1e-4, 1e-2, log=True), False),
            Dimension("optim.name", Choice("sgd", "lars"), False),
        }
        assert it.search is not None
        assert it.search.objectives == {"eval/knn/top1": "max", "pretrain/seconds": "min"}

    def test_a_trial_is_a_spec_or_a_located_mistake(self) -> None:
        [study] = sweep(self.TEXT).designs
        spec = study.trial({"hyper.mask_ratio": 0.5, "hyper.heads": 1, "optim.name": "lars", "optim.lr": 1e-3})
        assert (spec.hyper, spec.optim.name) == (Masked(mask_ratio=0.5, heads=1), "lars")
        with pytest.raises(
            SpecError, match=r"^a trial with hyper\.heads=5: hyper: width 64 does not divide into 5 heads$"
        ):
            study.trial({"hyper.heads": 5})

    def test_the_default_is_the_value_below_and_a_value_above_ends_a_search(self) -> None:
        text = "extends: base.yaml\nhyper: {width: {search: auto}, heads: {search: [1, 4]}}\n"
        Path("base.yaml").write_text("extends: masked.yaml\nhyper: {width: 32, mask_ratio: {search: auto}}\n")
        [study] = sweep(text + "search: {metric: pretrain/loss, scheduler: asha}\n", "hyper.heads=1").designs
        assert study.default.hyper == Masked(width=32, heads=1)
        assert {line.path for line in study.space} == {"hyper.width", "hyper.mask_ratio"}

    def test_what_is_best_stands_beside_the_default_from_fresh_seeds(self) -> None:
        it = sweep(self.TEXT)
        best = {"trial 7": {"hyper.mask_ratio": 0.5, "hyper.heads": 2}, "trial 9": {"hyper.heads": 2}}
        study = it.designs[0].beside(best, (1, 2))
        assert [(s.name, dict(s.changed), s.spec.seeds) for s in study.settings] == [
            ("default", {}, (1, 2)),
            ("trial 7", {"hyper.mask_ratio": 0.5}, (1, 2)),  # the other is the default itself
        ]
        assert study.factors == (Factor("setting", ("spec values", "trial 7"), "spec values", None, False),)
        assert study.space == ()

    def test_what_schedulers_go_by(self) -> None:
        text = "extends: masked.yaml\nhyper: {width: {search: auto}}\nsearch: "
        loss = sweep(text + "{metric: pretrain/loss, scheduler: asha}\n").search
        rankme = sweep(text + "{metric: eval/knn/top1, scheduler: median, rank: pretrain/rankme}\n").search
        knn = sweep(text + "{metric: eval/knn/top1, scheduler: asha}\nevals: {every: {steps: 2}}\n").search
        evals = "{every: {steps: 2}, few: {use: knn}, means: {both: [knn, few]}}"
        both = sweep(text + f"{{metric: eval/both/top1, scheduler: asha}}\nevals: {evals}\n").search
        assert loss is not None
        assert rankme is not None
        assert knn is not None
        assert both is not None
        assert (knn.ranking, both.ranking) == (("eval/knn/top1", "max"), ("eval/both/top1", "max"))
        assert (loss.ranking, rankme.ranking) == (("pretrain/loss", "min"), ("pretrain/rankme", "max"))

    @pytest.mark.parametrize("late", ["{use: finetune}", "null, slow: {use: finetune}, means: {late: [few, slow]}"])
    def test_a_number_of_trained_encoders_alone_ranks_no_trial(self, late: str) -> None:
        evals = f"evals: {{every: {{steps: 2}}, few: {{use: knn}}, late: {late}}}\n"
        text = f"extends: masked.yaml\nhyper: {{width: {{search: auto}}}}\n{evals}"
        assert refused(text + "search: {metric: eval/late/top1, scheduler: asha}\n") == [
            "s.yaml:4:1: search: scheduler: asha compares trials that still train, and eval/late/top1 trains on, from "
            "encoders that are trained; say rank: eval/knn/top1 or another"
        ]
        assert sweep(text + "search: {metric: eval/late/top1, scheduler: asha, rank: eval/knn/top1}\n").search

    def test_a_required_knob_may_be_searched_and_the_method_be_one_of_the_studies(self) -> None:
        it = sweep(
            "name: both\nsearch: {metric: pretrain/rankme}\nstudies:\n"
            "  - {extends: masked.yaml}\n  - {extends: contrast.yaml, hyper: {temperature: {search: auto}}}\n"
        )
        assert [len(study.space) for study in it.designs] == [0, 1]
        assert it.search is not None
        assert it.search.objectives == {"pretrain/rankme": "max"}

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ("hyper: {heads: {search: auto}}", "2:25: hyper.heads.search: the knob has no range of its own; say "
             "{low: , high: } or a list"),
            ("hyper: {width: {search: [32, 32]}}", "2:30: hyper.width: the value 32 twice"),
            ("optim: {lr: {search: [1, 1.0]}}", "2:26: optim.lr: the value 1.0 twice"),
            ("optim: {lr: {search: [0.1, 0.2, 1e-1]}}", "2:33: optim.lr: the value 0.1 twice"),
            ("optim: {lr: {search: [true, 1]}}", "2:23: optim.lr: expected number, not true"),
            ("optim: {betas: {search: [[0, 0.95], [0.5, 0.95], [0.0, 0.950]]}}", "2:50: optim.betas: the value "
             "[0.0, 0.95] twice"),
            ("optim: {betas: {search: [0.9, [0.9, 0.99]]}}", "2:26: optim.betas: expected [number, number], not 0.9"),
            ("optim: {warmup: {search: [{epochs: 1}, {epochs: 1.0}]}}", "2:40: optim.warmup: the value {epochs: 1.0} "
             "twice"),
            ("hyper: {width: {search: [32]}}", "2:25: hyper.width.search: expected two different values or more"),
            ("hyper: {width: {search: all}}", "2:25: hyper.width.search: expected auto, {low: , high: , log: }, or a "
             "list of values"),
            ("optim: {lr: {search: {low: 2, high: 1}}}", "2:22: optim.lr.search: low is 2 and high is 1: there is "
             "nothing between them"),
            ("optim: {min_lr: {search: {low: 0, high: 1, log: true}}}", "2:26: optim.min_lr.search: no logarithm of 0; "
             "low must be > 0"),
            ("hyper: {mask_ratio: {search: {low: 0.5, high: 2}}}", "2:47: hyper.mask_ratio: must be > 0, < 1, not 2"),
            ("optim: {lr: {search: [0.1, fast]}}", "2:28: optim.lr: expected number, not 'fast'"),
            ("resources: {workers: {search: [1, 2]}}", "2:13: resources.workers: changes no result, and so is no "
             "factor"),
            ("hyper: {mask_ration: {search: auto}}", "2:9: hyper.mask_ration: unknown key (did you mean "
             "'mask_ratio'?)"),
            ("seeds: 1", "3:1: search: nothing to search; let a value be {search: auto}"),
            ("optim: {lr: {search: auto}}\nablate: {hyper.heads: [1]}", "4:1: search: ablate and grid beside search: "
             "two kinds of sweep, never mixed; the one runs every arm to its end"),
        ],
    )  # fmt: skip
    def test_mistakes(self, lines: str, expected: str) -> None:
        text = f"extends: masked.yaml\n{lines}\nsearch: {{metric: eval/knn/top1}}\n"
        assert refused(text) == [f"s.yaml:{expected}"]

    @pytest.mark.parametrize(
        ("section", "expected"),
        [
            ("{}", "3:1: search.metric: required but missing: the metric to optimize, such as eval/knn/top1 or "
             "'min pretrain/loss'; several: a Pareto front"),
            ("{metric: pretrain/speed}", "3:18: search.metric: expected a metric such as eval/knn/top1 or "
             "'min pretrain/loss', not 'pretrain/speed'"),
            ("{metric: eval/knm/top1}", "3:1: search.metric: no evaluation of every study gives eval/knm/top1 "
             "(did you mean 'eval/knn/top1'?)"),
            ("{metric: eval/knn/top1, sampler: tp}", "3:42: search.sampler: expected random | tpe | gp | cmaes | "
             "nsga2, not 'tp' (did you mean 'tpe'?)"),
            ("{metric: eval/knn/top1, trails: 5}", "3:33: search.trails: unknown key (did you mean 'trials'?)"),
            ("{metric: [eval/knn/top1, pretrain/loss], sampler: random, scheduler: asha}", "3:9: search: scheduler: "
             "asha ranks trials by one number, and there are several metrics; say which is it, as rank: "
             "pretrain/rankme"),
            ("{metric: eval/knn/top1, scheduler: asha}", "3:1: search: scheduler: asha compares trials that still "
             "train, which have no eval/knn/top1 yet; say evals: {every: {epochs: 10}}, which evaluates while they do, "
             "or rank: pretrain/rankme or another number of the training"),
            ("{metric: pretrain/loss, scheduler: asha, rank: eval/knm/top1}", "3:1: search: scheduler: asha compares "
             "trials that still train, and no evaluation of every study gives eval/knm/top1"),
            ("{metric: pretrain/loss, rank: pretrain/rankme}", "3:9: search: rank: without effect, since scheduler: "
             "none stops no trial"),
            ("{metric: eval/knn/top1, scheduler: pbt}", "3:44: search.scheduler: pbt is not offered: it overwrites "
             "weights and settings while a trial trains, so that no run is a function of its spec any more, and Tune's "
             "only does so for checkpoints of its own; use asha or median"),
            ("{metric: eval/knn/top1, sampler: gp, scheduler: asha}", "3:9: search: scheduler: asha stops most trials, "
             "and sampler: gp learns of whole ones only: it would draw as if at random; say scheduler: none, or "
             "sampler: tpe"),
            ("{metric: [eval/knn/top1, pretrain/loss], scheduler: median}", "3:9: search: scheduler: median stops most "
             "trials, and sampler: tpe learns of whole ones only where there are several metrics: it would draw as if "
             "at random; say scheduler: none"),
            ("{metric: eval/knn/top1, finalists: 3}", "3:9: search: finalists: without effect, since one metric has "
             "one winner"),
            ("{metric: [eval/knn/top1, pretrain/gpu_hours]}", "3:1: search.metric: pretrain/gpu_hours is not measured "
             "without resources.gpus_per_worker; pretrain/seconds is"),
            ("{metric: eval/knn/top1, sampler: cmaes}", "3:1: search.sampler: cmaes draws numbers from ranges; "
             "hyper.width is a choice"),
        ],
    )  # fmt: skip
    def test_mistakes_in_the_section(self, section: str, expected: str) -> None:
        assert refused(f"extends: masked.yaml\nhyper: {{width: {{search: auto}}}}\nsearch: {section}\n") == [
            f"s.yaml:{expected}"
        ]

    def test_a_search_without_its_section(self) -> None:
        assert refused("extends: masked.yaml\nhyper: {width: {search: auto}}\n") == [
            "s.yaml:1:1: search: required but missing: how to search, such as {metric: eval/knn/top1}"
        ]
