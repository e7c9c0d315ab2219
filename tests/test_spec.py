"""Specs: what a file means, and the text of every mistake in one. The expected texts are written by hand."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

import selfsup
from selfsup import evaluator
from selfsup.errors import SpecError
from selfsup.knob import Knobs, as_dict, knob, knob_lines, non_default
from selfsup.masks import RandomMask
from selfsup.parts.checks import mask_leaves_both, whole_groups
from selfsup.sections import Setup
from selfsup.spec import Duration, Run, Spec, read, run_type, spec_type
from selfsup.spec_schema import schema


class Masked(Knobs):
    mask_ratio: float = knob(0.75, "share of tokens masked", gt=0, lt=1)
    normalize: bool = knob(False, "targets of unit variance")


class Contrast(Knobs):
    temperature: float = knob(..., "softmax temperature", gt=0)
    crop_min: float = knob(0.2, "smallest crop", gt=0, le=1)
    crop_max: float = knob(1.0, "largest crop", gt=0, le=1)
    split: int = knob(1, "groups of samples", ge=1)


EVALUATORS = ", ".join(evaluator.names())


def masks(hyper: Masked, setup: Setup) -> Iterator[SpecError]:
    return mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)


def splits(hyper: Contrast, setup: Setup) -> Iterator[SpecError]:
    return whole_groups("split", hyper.split, setup.train.batch // setup.resources.workers)


METHODS = {
    "masked": SimpleNamespace(Hyper=Masked, backbones=("vit",), check=masks),
    "contrast": SimpleNamespace(Hyper=Contrast, backbones=("vit", "cnn"), check=splits),
}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two methods of this file's own, so that the texts below depend on no method's knobs."""
    module: Any = ModuleType("selfsup.method")
    module.names, module.load = lambda: sorted(METHODS), METHODS.__getitem__
    caches = (run_type, spec_type)
    monkeypatch.setitem(sys.modules, "selfsup.method", module)
    monkeypatch.setattr(selfsup, "method", module, raising=False)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


GOOD = """\
name: photos
method: masked
data: {train: here, val: there}
train: {duration: {epochs: 10}, batch: 64}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def good(*overrides: str) -> Spec:
    return read(Path("good.yaml"), overrides)


def refused(text: str, *overrides: str) -> list[str]:
    """The lines of the error for a file s.yaml."""
    Path("s.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        read(Path("s.yaml"), overrides)
    return str(caught.value).splitlines()


def heads(text: str, *overrides: str) -> list[str]:
    """Its lines without source lines and carets."""
    return [line for line in refused(text, *overrides) if not line.startswith("    ")]


@pytest.mark.usefixtures("folder")
class TestMeaning:
    def test_a_run_for_each_seed(self) -> None:
        runs = good("seeds=3").runs
        assert [run.seed for run in runs] == [0, 1, 2]
        assert [run.seed for run in good("seeds=[7, 5]").runs] == [7, 5]
        assert all(isinstance(run, Run) and isinstance(run.hyper, Masked) for run in runs)
        assert non_default(runs[1]) == {
            "method": "masked",
            "data": {"train": str(Path("here").absolute()), "val": str(Path("there").absolute())},
            "train": {"duration": {"epochs": 10.0}, "batch": 64},
            "seed": 1,
        }

    def test_defaults_written_out_change_no_id(self) -> None:
        plain, spelled = good().runs[0], good("hyper.mask_ratio=0.75", "optim={lr: 1.5e-4}", "backbone={}").runs[0]
        assert non_default(plain) == non_default(spelled)
        assert as_dict(plain) == as_dict(spelled)

    def test_resources_and_records_change_no_id(self) -> None:
        other = good("resources.workers=2", "train.log_every=1", "stream.bad_share=0.5", "embed.batch=8").runs[0]
        assert non_default(other) == non_default(good().runs[0])

    def test_overrides_and_units(self) -> None:
        assert good("train.duration.steps=5").train.duration == Duration(steps=5)
        assert good("hyper.mask_ratio=0.6").hyper == Masked(mask_ratio=0.6)
        assert good("optim.warmup={steps: 5}", "optim.warmup.epochs=2").optim.warmup == Duration(epochs=2)

    def test_evaluations_are_the_files_of_evals(self) -> None:
        evals: Any = good("evals={knn: {k: 7}}").evals
        assert (evals.knn.k, evals.linear) == (7, None)
        assert non_default(good("evals={knn: {}}"))["evals"] == {"knn": {}}

    def test_a_null_takes_back_what_an_extended_spec_says(self) -> None:
        Path("top.yaml").write_text(
            "extends: good.yaml\ndata: {val: null}\nbackbone: {name: resnet18, patch_size: null}\n"
        )
        found = read(Path("top.yaml"), ["method=untrained"])
        assert (found.data.val, found.backbone.patch_size, found.name) == (None, None, "photos")

    def test_a_baseline_has_no_knobs(self) -> None:
        run = good("method=pixels").runs[0]
        assert as_dict(run)["hyper"] == {}
        assert "hyper" not in non_default(run)

    def test_runs_and_specs_travel_by_pickle(self) -> None:
        found = good("evals.knn.k=3", "hyper.normalize=true", "seeds=2")
        for whole in (found, found.runs[1]):
            again = pickle.loads(pickle.dumps(whole))
            assert again == whole
            assert type(again) is type(whole)
            assert non_default(again) == non_default(whole)

    def test_schema_accepts_what_reads_and_refuses_what_does_not(self) -> None:
        validator = jsonschema.Draft202012Validator(schema())
        validator.check_schema(schema())

        def valid(text: str) -> bool:
            return bool(validator.is_valid(yaml.safe_load(text)))

        assert valid(GOOD)
        assert valid(
            GOOD + "seeds: [1, 2]\nevals: {knn: {k: 5}}\noptim: {betas: [0.9, 0.99]}\nhyper: {mask_ratio: 0.5}\n"
        )
        assert valid("extends: other.yaml\nmethod: masked\ntrain: {batch: 8}\n")
        for wrong in ("hyper: {mask_ratio: 2}", "hyper: {temperature: 1}", "lr: 1", "seeds: 0", "evals: {knn: {k: a}}"):
            assert not valid(f"{GOOD}{wrong}\n"), wrong
        assert not valid("name: photos\nmethod: masked\n")


def test_durations_in_steps() -> None:
    assert Duration(steps=7).steps_of(batch=8, steps_per_epoch=100) == 7
    assert Duration(epochs=2.5).steps_of(batch=8, steps_per_epoch=3) == 8
    assert Duration(epochs=0.1).steps_of(batch=8, steps_per_epoch=30) == 3  # 0.1 * 30 > 3 in floats
    assert Duration(samples=16).steps_of(batch=8, steps_per_epoch=100) == 2
    assert Duration(samples=17).steps_of(batch=8, steps_per_epoch=100) == 3


def test_reading_the_sections_needs_no_torch() -> None:
    code = "import sys, selfsup.spec; selfsup.spec.run_type('pixels'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.usefixtures("folder")
class TestMistakes:
    def test_every_mistake_in_one_pass_by_line_with_caret(self) -> None:
        text = """\
name: photos
method: masked
data: {train: here}
hyper:
  mask_ration: 0.6
  normalize: yes
seeds: 3
train:
  batch: 010
  duration: {steps: 5, epochs: 1}
optim: {lr: -1, nam: sgd, betas: [0.9]}
seeds: 4
"""
        assert (
            "\n".join(refused(text, "stream.lanes=x", "nonsense"))
            == """\
s.yaml:5:3: hyper.mask_ration: unknown key (did you mean 'mask_ratio'?)
      mask_ration: 0.6
      ^
s.yaml:6:14: hyper.normalize: expected true | false, not 'yes'
      normalize: yes
                 ^
s.yaml:9:10: train.batch: 010 has a leading zero (leave it out, or quote the text)
      batch: 010
             ^
s.yaml:10:13: train.duration: give exactly one of steps, epochs, samples, not steps: 5 and epochs: 1.0
      duration: {steps: 5, epochs: 1}
                ^
s.yaml:11:13: optim.lr: must be > 0, not -1
    optim: {lr: -1, nam: sgd, betas: [0.9]}
                ^
s.yaml:11:17: optim.nam: unknown key (did you mean 'name'?)
    optim: {lr: -1, nam: sgd, betas: [0.9]}
                    ^
s.yaml:11:34: optim.betas: expected [number, number], not [0.9]
    optim: {lr: -1, nam: sgd, betas: [0.9]}
                                     ^
s.yaml:12:1: seeds: duplicate key 'seeds' (first on line 7)
    seeds: 4
    ^
-s nonsense: expected path=value, such as optim.lr=1e-3
-s stream.lanes=x: stream.lanes: expected integer, not 'x'"""
        )

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            # unknown keys: a sibling, another method's, another place's, nobody's
            ("hyper: {mask_ratoi: 0.5}", "5:9: hyper.mask_ratoi: unknown key (did you mean 'mask_ratio'?)"),
            ("hyper: {temperature: 0.5}", "5:9: hyper.temperature: unknown key (a knob of contrast)"),
            ("duration: {steps: 5}", "5:1: duration: unknown key (it belongs at train.duration)"),
            ("batch: 5", "5:1: batch: unknown key (it belongs at embed.batch or evals.linear.batch or train.batch)"),
            ("color: red", "5:1: color: unknown key"),
            # types
            ("stream: {mix: 2.0}", "5:15: stream.mix: expected integer, not 2.0 (write 2)"),
            ("stream: {mix: true}", "5:15: stream.mix: expected integer, not true"),
            ("optim: {lr: fast}", "5:13: optim.lr: expected number, not 'fast'"),
            ("optim: {clip_norm: []}", "5:20: optim.clip_norm: expected number | null, not []"),
            ("baselines: True", "5:12: baselines: expected true | false, not 'True'"),
            (
                "backbone: {weights: 5}",
                "5:21: backbone.weights: expected text | null, not 5 (put text that looks like another type in quotes)",
            ),
            ("embed:", "5:7: embed: expected {crop, batch}, not null"),
            ("evals: [knn]", f"5:8: evals: expected {{{EVALUATORS}}}, not ['knn']"),
            ("optim: {warmup: 5}", "5:17: optim.warmup: expected {steps, epochs, samples} | null, not 5"),
            ("optim: {betas: [0.9, x]}", "5:22: optim.betas[1]: expected number, not 'x'"),
            ("optim: {betas: 0.9}", "5:16: optim.betas: expected [number, number], not 0.9"),
            ("optim: {betas: [0, 0, 0]}", "5:16: optim.betas: expected [number, number], not [0, 0, 0]"),
            (
                "optim: {name: adam}",
                "5:15: optim.name: expected adamw | sgd | lars, not 'adam' (did you mean 'adamw'?)",
            ),
            # bounds
            ("hyper: {mask_ratio: 1}", "5:21: hyper.mask_ratio: must be > 0, < 1, not 1"),
            ("optim: {betas: [0.9, 1.5]}", "5:22: optim.betas[1]: expected less than 1, not 1.5"),
            ("optim: {lr: .inf}", "5:13: optim.lr: must be > 0, not inf"),
            ("evals: {linear: {lrs: []}}", "5:23: evals.linear.lrs: must be at least 1 long, not []"),
            (
                "seeds: 0",
                "5:8: seeds: expected how many seeds (1 to 1000), or a list of different ones (0 to 2³² - 1)",
            ),
            (
                "seeds: [0, 4294967296]",  # which draw the same on a CPU
                "5:8: seeds: expected how many seeds (1 to 1000), or a list of different ones (0 to 2³² - 1)",
            ),
            (
                "seeds: [1, 1]",
                "5:8: seeds: expected how many seeds (1 to 1000), or a list of different ones (0 to 2³² - 1)",
            ),
            ("optim: {warmup: {}}", "5:17: optim.warmup: give exactly one of steps, epochs, samples, not none"),
            ("evals: {knnn: {}}", "5:9: evals.knnn: unknown key (did you mean 'knn'?)"),
        ],
    )
    def test_one_key(self, line: str, expected: str) -> None:
        assert heads(GOOD + line) == [f"s.yaml:{expected}"]

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("maskd", "'maskd' (did you mean 'masked'?)"),
            ("zzz", "'zzz'"),
            ("[masked]", "['masked']"),
        ],
    )
    def test_an_unknown_method_does_not_hide_the_rest(self, method: str, expected: str) -> None:
        text = GOOD.replace("method: masked", f"method: {method}") + "hyper: {any: thing}\nstream: {lanes: 0}\n"
        assert heads(text) == [
            f"s.yaml:2:9: method: expected contrast | masked | pixels | untrained, not {expected}",
            "s.yaml:6:17: stream.lanes: must be ≥ 1, ≤ 65536, not 0",
        ]

    def test_missing_keys_are_told_at_the_group_that_lacks_them(self) -> None:
        assert heads("name: x\ntrain:\n  batch: 8\n", "data.val=v", "method=contrast") == [
            "s.yaml:1:1: hyper: required but missing: the method's own knobs",
            "s.yaml:2:1: train.duration: required but missing: how long, as {steps: n}, {epochs: n} or {samples: n}",
            "-s data.val=v: data.train: required but missing: folder or URL of training shards with a manifest, or "
            "bundled://photos/train",
        ]

    def test_a_mistake_in_an_extended_file_is_told_there(self) -> None:
        Path("base.yaml").write_text(GOOD + "hyper: {mask_ratio: 3}\n")
        assert refused("extends: base.yaml\nname: other\n") == [
            "base.yaml:5:21: hyper.mask_ratio: must be > 0, < 1, not 3",
            "    hyper: {mask_ratio: 3}",
            "                        ^",
        ]

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (
                "stream: {lanes: 7}",
                [
                    "4:33: train.batch: a batch of 64 (train.batch) does not divide into 7 lanes (stream.lanes); "
                    "63 or 70 would"
                ],
            ),
            (
                "resources: {workers: 16}",
                [
                    "5:13: resources.workers: more workers than lanes: 16 workers, 8 lanes (stream.lanes); "
                    "each needs at least one"
                ],
            ),
            (
                "resources: {workers: 3}",
                ["5:13: resources.workers: 8 lanes (stream.lanes) do not divide over 3 workers; 1, 2, 4, 8 would"],
            ),
            (
                "backbone: {name: resnet18}",
                ["5:12: backbone.name: masked works on tokens, which resnet18 does not take; choose a plain ViT"],
            ),
            (
                "backbone: {name: resnet_18}",
                [
                    "5:12: backbone.name: timm has no model 'resnet_18'; did you mean resnet18, "
                    "resnetv2_18, resnet18d?",
                ],
            ),
            (
                "backbone: {image_size: 64, patch_size: 6}",
                ["5:28: backbone.patch_size: samples of 64 x 64 points do not divide into patches of 6"],
            ),
            (
                "hyper: {mask_ratio: 0.95}\nbackbone: {image_size: 32, patch_size: 8}",
                [
                    "5:9: hyper.mask_ratio: a mask ratio of 0.95 keeps 0 of the 16 tokens of a sample; "
                    "some must stay, some must go"
                ],
            ),
            (
                "optim: {warmup: {epochs: 10.5}}",
                ["5:18: optim.warmup.epochs: a warmup of 10.5 epochs is longer than the training of 10 epochs"],
            ),
            (
                "optim: {name: lars, betas: [0.9, 0.95], decay_all: true}",
                [
                    "5:21: optim.betas: has no effect with optim.name: lars; leave it out",
                    "5:41: optim.decay_all: has no effect with optim.name: lars; leave it out",
                ],
            ),
            (
                "optim: {momentum: 0.9, trust: 1}",
                [
                    "5:9: optim.momentum: has no effect with optim.name: adamw; leave it out",
                    "5:24: optim.trust: has no effect with optim.name: adamw; leave it out",
                ],
            ),
            (
                "optim: {name: sgd, betas: [0, 0], trust: 1}",
                [
                    "5:20: optim.betas: has no effect with optim.name: sgd; leave it out",
                    "5:35: optim.trust: has no effect with optim.name: sgd; leave it out",
                ],
            ),
            (
                "optim: {drops: [0.5], min_lr: 0.1}",
                ["5:23: optim.min_lr: has no effect with optim.drops; leave it out"],
            ),
            (
                "optim: {drop_factor: 0.2}",
                ["5:9: optim.drop_factor: has no effect without optim.drops; leave it out"],
            ),
            (
                "optim: {lr_rule: none, lr_batch: 256}",
                ["5:24: optim.lr_batch: has no effect with optim.lr_rule: none; leave it out"],
            ),
            (
                "backbone: {stem: small}",
                ["5:12: backbone.stem: has no effect on vit_small_patch16_224, a plain ViT; leave it out"],
            ),
        ],
    )
    def test_settings_that_are_wrong_together(self, lines: str, expected: list[str]) -> None:
        assert heads(GOOD + lines) == [f"s.yaml:{line}" for line in expected]

    def test_a_cnn_refuses_what_only_a_vit_reads(self) -> None:
        knobs = "{name: resnet18, patch_size: 8, depth: 1, heads: 1, positions: sincos, pool: cls}"
        found = heads(GOOD.replace("masked", "untrained") + f"backbone: {knobs}")
        assert [line.split(": ")[1] for line in found] == [
            f"backbone.{name}" for name in ("patch_size", "depth", "heads", "positions", "pool")
        ]

    def test_a_worker_s_share_must_divide_into_pieces(self) -> None:
        assert heads(GOOD, "resources.workers=8", "train.accumulate=3") == [
            "-s train.accumulate=3: train.accumulate: a worker's 8 samples per step do not divide into 3 equal pieces"
        ]

    def test_the_least_is_below_the_most(self) -> None:
        text = GOOD.replace("masked", "contrast")
        assert heads(f"{text}hyper: {{temperature: 1, crop_max: 0.3}}", "hyper.crop_min=0.5") == [
            "-s hyper.crop_min=0.5: hyper.crop_min: the minimum 0.5 (hyper.crop_min) exceeds the maximum 0.3 "
            "(hyper.crop_max)"
        ]

    def test_samples_of_a_worker_divide_into_groups(self) -> None:
        text = GOOD.replace("masked", "contrast") + "hyper: {temperature: 1}"
        assert heads(text, "resources.workers=4", "train.accumulate=2", "hyper.split=12") == [
            "-s hyper.split=12: hyper.split: the 16 samples of a forward pass do not divide into 12 groups "
            "(hyper.split)"
        ]

    def test_evaluations_need_validation_data(self) -> None:
        assert heads(GOOD.replace(", val: there", "") + "evals: {knn: {}, linear: {}}") == [
            "s.yaml:5:1: evals: knn and linear cannot score without data.val, the validation shards"
        ]

    def test_of_two_that_clash_the_one_just_typed_is_told(self) -> None:
        assert heads(GOOD, "stream.lanes=7") == [
            "-s stream.lanes=7: stream.lanes: a batch of 64 (train.batch) does not divide into 7 lanes (stream.lanes); "
            "63 or 70 would"
        ]

    def test_groups_of_batch_norm(self) -> None:
        assert heads(GOOD, "train.norm_groups=3") == [
            "-s train.norm_groups=3: train.norm_groups: 8 lanes (stream.lanes) do not divide into 3 groups "
            "(train.norm_groups)"
        ]
        assert heads(GOOD, "train.batch=96", "stream.lanes=12", "train.norm_groups=6", "resources.workers=4") == [
            "-s train.norm_groups=6: train.norm_groups: 6 groups (train.norm_groups) over 4 workers: one of the "
            "numbers must divide the other"
        ]
        assert heads(GOOD, "train.norm_groups=4", "train.accumulate=2") == [
            "-s train.norm_groups=4: train.norm_groups: pieces of a batch (train.accumulate) are batch-normalized "
            "apart as they are; leave out one of the two"
        ]

    def test_a_clash_is_told_beside_a_mistake_elsewhere_but_not_of_a_section_with_one(self) -> None:
        assert heads(GOOD + "optim: {lr: 0, trust: 1}\nresources: {workers: 3}\n") == [
            "s.yaml:5:13: optim.lr: must be > 0, not 0",
            "s.yaml:6:13: resources.workers: 8 lanes (stream.lanes) do not divide over 3 workers; 1, 2, 4, 8 would",
        ]


def test_a_method_that_does_not_exist() -> None:
    with pytest.raises(SpecError, match=r"^no method is called 'maskd' \(did you mean 'masked'\?\)$"):
        run_type("maskd")
    with pytest.raises(SpecError, match=r"^no method is called 'x' \(there are contrast, masked, pixels, untrained\)$"):
        run_type("x")


@pytest.mark.parametrize("method", ["masked", "contrast", "pixels", "untrained"])
def test_every_knob_of_a_spec_says_what_it_is(method: str) -> None:
    assert [line.path for line in knob_lines(spec_type(method)) if not line.doc] == []


def test_a_run_reads_back_from_its_own_dump() -> None:
    data, train = {"train": "here"}, {"duration": {"epochs": 1}}
    run = run_type("masked").model_validate({"method": "masked", "seed": 3, "data": data, "train": train})
    assert type(run).model_validate(run.model_dump()) == run
