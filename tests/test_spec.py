"""Specs: what a file means, and the text of every mistake in one. The expected texts are written by hand."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from toy_methods import registered
from toy_specs import GOOD, METHODS, Masked, heads, refused

from selfsup import evaluator
from selfsup.errors import SpecError
from selfsup.knob import as_dict, knob_lines, non_default
from selfsup.spec import Duration, Run, Spec, read, run_type, spec_type
from selfsup.spec_schema import schema

EVALUATORS = ", ".join(evaluator.names())
BATCHED = " or ".join(
    f"evals.{name}.batch" for name in evaluator.names() if "batch" in evaluator.load(name).Hyper.model_fields
)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(METHODS, monkeypatch):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def good(*overrides: str) -> Spec:
    return read(Path("good.yaml"), overrides)


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
            (
                "batch: 5",
                f"5:1: batch: unknown key (it belongs at embed.batch or {BATCHED} or train.batch)",
            ),
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
            ("embed:", "5:7: embed: expected {crop, clips, crops, batch}, not null"),
            ("evals: [knn]", f"5:8: evals: expected {{{EVALUATORS}, every, means}}, not ['knn']"),
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
