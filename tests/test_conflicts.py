"""Settings that are valid one by one but not together, and the text that says so, written by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_methods import registered
from toy_specs import GOOD, METHODS, heads


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(METHODS, monkeypatch):
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestConflicts:
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

    def test_each_number_of_a_range_of_workers_is_held_to_that(self) -> None:
        assert heads(GOOD, "resources.workers={min: 2, max: 8}", "train.accumulate=16") == [
            "-s train.accumulate=16: train.accumulate: a worker's 8 samples per step do not divide into 16 equal pieces"
        ]
        assert heads(GOOD, "resources.workers={min: 5, max: 7}") == [
            "-s resources.workers={min: 5, max: 7}: resources.workers: 8 lanes (stream.lanes) do not divide over 5 "
            "workers; 1, 2, 4, 8 would"
        ]

    @pytest.mark.parametrize("workers", ["0", "many", "2.0", "{min: 4, max: 2}", "{min: 2}", "{min: 2, max: 4, by: 2}"])
    def test_workers_are_a_number_or_a_range(self, workers: str) -> None:
        assert heads(GOOD, f"resources.workers={workers}") == [
            f"-s resources.workers={workers}: resources.workers: expected how many workers (1 to 65536), or a range, "
            "such as {min: 2, max: 8}"
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
            f"s.yaml:5:{column}: evals.{name}: {name} cannot score without data.val, the validation shards; give them, "
            f"or some of its own ({name}: {{data: {{val: ...}}}}), or leave it out ({name}: null)"
            for name, column in (("knn", 9), ("linear", 18))
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
