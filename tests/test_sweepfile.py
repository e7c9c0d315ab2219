"""Sweep files: which arms one means, and the text of every mistake in one. The expected texts are written by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from toy_methods import registered
from toy_sweepfiles import CONTRAST, MASKED, METHODS, Masked, refused, sweep

from selfsup.errors import SpecError
from selfsup.sweeps.spec.schema import schema
from selfsup.sweeps.spec.study import Factor
from selfsup.sweeps.spec.sweepfile import SweepFile


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(METHODS, monkeypatch):
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("masked.yaml").write_text(MASKED)
    Path("contrast.yaml").write_text(CONTRAST)


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
