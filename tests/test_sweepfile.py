"""Sweep files: which arms one means, and the text of every mistake in one. The expected texts are written by hand."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import model_validator

import selfsup
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.spec import run_type, spec_type
from selfsup.sweeps.spec.schema import schema
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.study import Factor
from selfsup.sweeps.spec.sweepfile import SweepFile, read


class Masked(Knobs):
    mask_ratio: float = knob(0.75, "share of tokens masked", sweep=Range(0.4, 0.9), gt=0, lt=1)
    width: int = knob(64, "channels", sweep=Choice(32, 64), gt=0)
    heads: int = knob(2, "attention heads", gt=0)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class Contrast(Knobs):
    temperature: float = knob(..., "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)


METHODS = {
    "masked": SimpleNamespace(Hyper=Masked, backbones=("vit",), check=lambda *_: ()),
    "contrast": SimpleNamespace(Hyper=Contrast, backbones=("vit", "cnn"), check=lambda *_: ()),
}
MASKED = """\
name: base
method: masked
data: {train: here, val: there}
train: {duration: {epochs: 10}, batch: 64}
evals: {knn: {}, linear: {}}
"""
CONTRAST = MASKED.replace("masked", "contrast") + "hyper: {temperature: 0.1}\n"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two methods of this file's own, so that the texts below depend on no method's knobs."""
    module: Any = ModuleType("selfsup.method")
    module.names, module.load = lambda: sorted(METHODS), METHODS.__getitem__
    monkeypatch.setitem(sys.modules, "selfsup.method", module)
    monkeypatch.setattr(selfsup, "method", module, raising=False)
    for cached in (run_type, spec_type):
        cached.cache_clear()
    yield
    for cached in (run_type, spec_type):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("masked.yaml").write_text(MASKED)
    Path("contrast.yaml").write_text(CONTRAST)


def sweep(text: str, *overrides: str) -> SweepFile:
    Path("s.yaml").write_text(text)
    return read(Path("s.yaml"), overrides)


def refused(text: str, *overrides: str) -> list[str]:
    """The lines of the error, without source lines and carets."""
    with pytest.raises(SpecError) as caught:
        sweep(text, *overrides)
    return [line for line in str(caught.value).splitlines() if not line.startswith("    ")]


def arms(it: SweepFile, study: int = 0) -> dict[str, dict[str, Any]]:
    return {setting.name: dict(setting.changed) for setting in it.designs[study].settings}


class TestArms:
    def test_one_factor_at_a_time_round_one_default(self) -> None:
        it = sweep("extends: masked.yaml\nablate: {hyper.mask_ratio: [0.9, 0.5, 0.75], hyper.heads: [1, 2]}\n")
        assert it.kind == "ablate"
        assert arms(it) == {
            "default": {},
            "mask_ratio=0.9": {"hyper.mask_ratio": 0.9},
            "mask_ratio=0.5": {"hyper.mask_ratio": 0.5},
            "heads=1": {"hyper.heads": 1},
        }
        assert it.designs[0].settings[1].values == {"hyper.mask_ratio": 0.9, "hyper.heads": 2}
        assert it.designs[0].settings[3].spec.hyper == Masked(heads=1)
        assert it.designs[0].factors == (
            Factor("hyper.mask_ratio", (0.5, 0.75, 0.9), 0.75, None, False),
            Factor("hyper.heads", (1, 2), 2, None, False),
        )
        assert tuple(it.metrics) == ("eval/knn/top1", "eval/linear/top1")

    def test_the_default_is_put_among_the_values_and_is_no_arm_of_its_own(self) -> None:
        it = sweep("extends: contrast.yaml\nablate: {hyper.temperature: [1, 0.05], optim.lr_rule: [sqrt]}\n")
        assert it.designs[0].factors == (
            Factor("hyper.temperature", (0.05, 0.1, 1.0), 0.1, "τ", True),
            Factor("optim.lr_rule", ("linear", "sqrt"), "linear", None, False),
        )
        assert list(arms(it)) == ["default", "temperature=1.0", "temperature=0.05", "lr_rule=sqrt"]

    def test_a_grid_crosses_what_is_listed_and_counts_a_setting_once(self) -> None:
        it = sweep(
            "extends: masked.yaml\nablate: {train.batch: [128]}\n"
            "grid: {train.batch: [64, 128], hyper.mask_ratio: [0.5, 0.75]}\n"
        )
        assert arms(it) == {
            "default": {},
            "batch=128": {"train.batch": 128},
            "batch=64, mask_ratio=0.5": {"hyper.mask_ratio": 0.5},
            "batch=128, mask_ratio=0.5": {"train.batch": 128, "hyper.mask_ratio": 0.5},
        }

    def test_a_grid_whose_values_go_only_together(self) -> None:
        it = sweep("extends: masked.yaml\ngrid: {hyper.width: [60, 90], hyper.heads: [3, 5]}\n")
        assert len(arms(it)) == 5
        assert it.designs[0].grid[0].values == (60, 64, 90)

    def test_a_duration_is_one_value_whatever_its_unit(self) -> None:
        it = sweep("extends: masked.yaml\nablate: {train.duration: [{steps: 5}, {epochs: 10}]}\n")
        assert arms(it) == {"default": {}, "duration={steps: 5}": {"train.duration": {"steps": 5}}}

    def test_names_that_two_factors_share_are_written_out(self) -> None:
        it = sweep("extends: contrast.yaml\nablate: {optim.name: [sgd], backbone.name: [vit_tiny_patch16_224]}\n")
        assert list(arms(it)) == ["default", "optim.name=sgd", "backbone.name=vit_tiny_patch16_224"]

    def test_a_spec_without_axes_is_a_sweep_of_one_arm(self) -> None:
        it = sweep("extends: masked.yaml\nname: alone\n")
        assert (it.kind, it.name, arms(it)) == ("plain", "alone", {"default": {}})

    def test_overrides_change_the_default_and_the_values(self) -> None:
        text = "extends: masked.yaml\nablate: {hyper.mask_ratio: [0.5]}\n"
        it = sweep(text, "hyper.mask_ratio=0.6", "ablate.hyper.mask_ratio=[0.7]", "seeds=5")
        assert it.designs[0].factors[0].values == (0.6, 0.7)
        assert it.designs[0].default.seeds == (0, 1, 2, 3, 4)

    def test_the_paper_s_numbers(self) -> None:
        it = sweep(
            "extends: masked.yaml\nablate: {hyper.heads: [1]}\n"
            "expected: {source: Table 1, default: {eval/knn/top1: 70}, heads=1: {eval/linear/top1: 65.5}}\n"
        )
        assert it.designs[0].source == "Table 1"
        assert it.designs[0].expected == {"default": {"eval/knn/top1": 70}, "heads=1": {"eval/linear/top1": 65.5}}

    def test_numbers_of_another_protocol_are_named_but_not_set_beside_ours(self) -> None:
        text = "extends: masked.yaml\nexpected: {source: Table 1, protocol: %s, default: {eval/linear/top1: 70}}\n"
        [same], [other] = (sweep(text % protocol).designs for protocol in ("frozen", "augmented"))
        assert (same.expected, same.source) == ({"default": {"eval/linear/top1": 70}}, "Table 1")
        note = "Table 1, not set beside ours: its probes were trained on augmented views"
        assert (other.expected, other.source) == ({}, note)


def test_studies_lie_over_what_is_extended_and_under_what_they_say_themselves() -> None:
    it = sweep(
        """\
name: both
question: Which?
seeds: 2
train: {batch: 32}
optim: {lr: 0.5}
studies:
  - {extends: masked.yaml, ablate: {hyper.heads: [1]}}
  - {extends: contrast.yaml, name: small, optim: {lr: 0.25}}
""",
        "train.duration.steps=7",
    )
    assert (it.kind, it.name, it.question) == ("ablate", "both", "Which?")
    found = {study.name: study.default for study in it.designs}
    assert [(name, spec.method, spec.name, spec.seeds) for name, spec in found.items()] == [
        ("masked", "masked", "both", (0, 1)),
        ("small", "contrast", "both", (0, 1)),
    ]
    assert [(spec.train.batch, spec.train.duration.steps, spec.optim.lr) for spec in found.values()] == [
        (32, 7, 0.5),
        (32, 7, 0.25),
    ]
    assert [len(study.settings) for study in it.designs] == [2, 1]


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
        assert loss is not None
        assert rankme is not None
        assert (loss.ranking, rankme.ranking) == (("pretrain/loss", "min"), ("pretrain/rankme", "max"))

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
             "asha compares trials that still train, which have no eval/knn/top1 yet; say rank: pretrain/rankme or "
             "another number of the training"),
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


class TestMistakes:
    def test_every_mistake_in_one_pass_with_caret(self) -> None:
        text = """\
extends: masked.yaml
ablate:
  hyper.mask_ratio: [0.5, 1.5, high]
  hyper.mask_ration: [0.5]
  train.batch: [64, 60]
optim: {lr: -1}
"""
        with pytest.raises(SpecError) as caught:
            sweep(text)
        assert (
            str(caught.value)
            == """\
s.yaml:3:27: hyper.mask_ratio: must be > 0, < 1, not 1.5
      hyper.mask_ratio: [0.5, 1.5, high]
                              ^
s.yaml:3:32: hyper.mask_ratio: expected number, not 'high'
      hyper.mask_ratio: [0.5, 1.5, high]
                                   ^
s.yaml:4:3: hyper.mask_ration: unknown key (did you mean 'mask_ratio'?)
      hyper.mask_ration: [0.5]
      ^
s.yaml:5:21: train.batch: a batch of 60 (train.batch) does not divide into 8 lanes (stream.lanes); 56 or 64 would \
(in the arm batch=60)
      train.batch: [64, 60]
                        ^
s.yaml:6:13: optim.lr: must be > 0, not -1
    optim: {lr: -1}
                ^"""
        )

    @pytest.mark.parametrize(
        ("axes", "expected"),
        [
            ("hyper.temperature: [0.1]", "2:10: hyper.temperature: unknown key (a knob of contrast)"),
            ("optim.momentum: [0.8, 0.9]", "2:10: optim.momentum: has no effect with optim.name: adamw; leave it out"),
            ("resources.workers: [1, 2]", "2:10: resources.workers: changes no result, and so is no factor"),
            ("seeds: [1, 2]", "2:10: seeds: seeds repeat every arm, and are no factor"),
            ("method: [masked, contrast]", "2:10: method: methods differ in their knobs: make each of them one of the "
             "studies"),
            ("backbone: [{depth: 1}]", "2:10: backbone: a group of knobs; vary one of them, such as backbone.name"),
            ("hyper.heads: [1, 2, 1]", "2:30: hyper.heads: the value 1 twice"),
            ("hyper.mask_ratio: [0.5, 0.50]", "2:34: hyper.mask_ratio: the value 0.5 twice"),
            ("hyper.heads: [2]", "2:24: hyper.heads: nothing to compare: its only value, 2, is the default"),
            ("hyper.heads: 1", "2:23: ablate.hyper.heads: expected a list of values, not 1"),
            ("hyper.heads: []", "2:23: ablate.hyper.heads: expected a list of values, not []"),
            ("hyper.heads: [1, 3]", "2:27: hyper: width 64 does not divide into 3 heads (in the arm heads=3)"),
            ("backbone.name: [resnet18]", "2:10: backbone.name: masked works on tokens, which resnet18 does not "
             "take; choose a plain ViT"),
        ],
    )  # fmt: skip
    def test_of_an_axis(self, axes: str, expected: str) -> None:
        assert refused(f"extends: masked.yaml\nablate: {{{axes}}}\n") == [f"s.yaml:{expected}"]

    @pytest.mark.parametrize(
        ("grid", "expected"),
        [
            ("{hyper.heads: [1, 2]}", "2:1: grid: a grid crosses two factors or more; vary one by ablate"),
            ("[hyper.heads]", "2:7: grid: expected paths and values, such as {hyper.mask_ratio: [0.5, 0.75]}"),
            ("{hyper.heads: [1, 0], hyper.width: [8, 16]}", "2:25: hyper.heads: must be > 0, not 0"),
            ("{hyper.heads: [3, 4], hyper.width: [60, 64]}", "2:47: hyper: width 64 does not divide into 3 heads "
             "(in the arm heads=3, width=64)"),
        ],
    )  # fmt: skip
    def test_of_a_grid(self, grid: str, expected: str) -> None:
        assert refused(f"extends: masked.yaml\ngrid: {grid}\n") == [f"s.yaml:{expected}"]

    @pytest.mark.parametrize(
        ("expected", "message"),
        [
            ("5", "3:11: expected: expected arms and their numbers: {default: {eval/knn/top1: 70}}"),
            ("{head=1: {}}", "3:12: expected.head=1: no arm of this study (did you mean 'heads=1'?)"),
            ("{default: {eval/lin/top1: 7}}", "3:22: expected.default.eval/lin/top1: not measured here "
             "(did you mean 'eval/linear/top1'?)"),
            ("{default: {eval/knn/top1: x}}", "3:37: expected.default.eval/knn/top1: expected number, not 'x'"),
            ("{source: 1}", "3:20: expected.source: expected text, not 1"),
            ("{protocol: mine}", "3:22: expected.protocol: expected one of frozen, augmented, four_blocks, best_layer, "
             "online, head"),
        ],
    )  # fmt: skip
    def test_of_the_paper_s_numbers(self, expected: str, message: str) -> None:
        text = f"extends: masked.yaml\nablate: {{hyper.heads: [1]}}\nexpected: {expected}\n"
        assert refused(text) == [f"s.yaml:{message}"]

    def test_of_studies(self) -> None:
        studies = "studies: [{extends: masked.yaml}, {extends: masked.yaml, search: {}}, 5]\n"
        assert refused(studies) == [
            "s.yaml:1:1: name: required but missing: what the sweep goes by",
            "s.yaml:1:1: studies: two studies are called masked; give one of them another name",
            "s.yaml:1:58: search: unknown key",
            "s.yaml:1:71: studies[2]: expected a mapping: {extends: ...}",
        ]
        assert refused("name: none\nstudies: {}\n") == ["s.yaml:2:10: studies: expected a list of mappings"]
        assert refused("name: lost\nstudies: [{extends: ../gone.yaml}]\n") == [
            "s.yaml:2:21: extends: cannot read ../gone.yaml: No such file or directory"
        ]


def test_schema_accepts_what_reads_and_refuses_what_does_not() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())

    def valid(text: str) -> bool:
        return bool(validator.is_valid(yaml.safe_load(text)))

    assert valid(MASKED)
    assert valid(MASKED + "ablate: {hyper.heads: [1, 2]}\nexpected: {source: x, default: {eval/knn/top1: 7}}\n")
    assert valid(MASKED + "hyper: {heads: {search: {low: 1, high: 2}}}\nsearch: {metric: eval/knn/top1}\n")
    assert valid("name: x\nstudies: [{extends: masked.yaml, optim: {lr: 1.0}}]\n")
    for wrong in ("ablate: {hyper.heads: 1}", "hyper: {heads: {search: 5}}", "search: {sampler: x}", "studies: []"):
        assert not valid(f"{MASKED}{wrong}\n"), wrong


def test_a_primary_metric_is_one_that_tables_show() -> None:
    assert sweep("extends: masked.yaml\nprimary: eval/knn/top1\n").primary == "eval/knn/top1"
    assert sweep("extends: masked.yaml\n").primary == ""
    assert refused("extends: masked.yaml\nprimary: eval/knn/top2\n") == [
        "s.yaml:2:10: primary: no table shows eval/knn/top2 (did you mean 'eval/knn/top1'?)"
    ]
