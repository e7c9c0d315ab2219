"""What a plan refuses, and at which place: settings that the data, the encoder or the length do not go with."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import PLACE, Home, weights

from selfsup.errors import DataError, SpecError
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.evaluate import Load
from selfsup.source import Mark
from selfsup.spec import read
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.views import Center


def test_a_batch_larger_than_the_set(home: Home) -> None:
    with pytest.raises(SpecError, match=r"train\.batch: 24 samples a step, but .* holds 16"):
        home.plan(train__batch=24)
    assert home.run(train__batch=24, stream__remainder="wrap").steps == 4


@pytest.mark.parametrize("method", ["dinov2", "ibot", "msn"])
def test_a_vit_without_the_class_token_that_a_method_learns_on(home: Home, method: str) -> None:
    without = {"backbone__name": "vit_base_patch16_siglip_224", "backbone__pool": "mean"}
    with pytest.raises(SpecError, match=rf"{method} learns on the class token, and vit_base_.* has none; choose"):
        home.plan(method=method, **without)
    assert home.run(method=method, backbone__pool="mean").run.method == method
    with pytest.raises(SpecError, match=rf"backbone\.class_tokens: {method} learns on one class token; leave it out"):
        home.plan(method=method, backbone__class_tokens=2)
    assert home.run(method="dino", **without).run.method == "dino"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyper__decoder_depth": 5}, r"hyper\.decoder_depth: 12 blocks of the encoder do not divide into 5"),
        ({"method": "data2vec", "hyper__average": 13}, r"hyper\.average: .*12"),
        (
            {"method": "mae", "backbone__name": "vit_base_patch16_siglip_224"},
            r"backbone\.name: vit_base_patch16_siglip_224 has no class token; use backbone\.pool: mean",
        ),
        ({"method": "mae", "hyper": {"mask_block": 4}}, r"hyper\.mask_block: a mask ratio of 0\.75 keeps 0 of the 16"),
    ],
)
def test_a_depth_and_a_class_token_that_are_the_name_s_own(home: Home, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        home.plan(**{"method": "semaim"} | changes)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("densenet121", ["compile"], r"train\.compile: densenet121 has no sequence of blocks"),
        ("densenet121", ["checkpoint_activations"], r"train\.checkpoint_activations: densenet121 has no sequence"),
        (
            "resnet18",
            ["checkpoint_activations", "compile"],
            r"batch normalization cannot be compiled and computed once",
        ),
        ("resnet18", ["sharding"], r"train\.sharding: weights of resnet18 are in channels-last order"),
        ("resnet18", ["pack_crops"], r"train\.pack_crops: the views of simclr do not differ in size"),
    ],
)
def test_blocks_that_are_not_there(home: Home, name: str, settings: list[str], message: str) -> None:
    asked = {f"train__{setting}": "fsdp" if setting == "sharding" else True for setting in settings}
    with pytest.raises(SpecError, match=message):
        home.plan(method="simclr", backbone={"name": name, "image_size": 64}, **asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"name": "beit_base_patch16_224"}}, "the blocks of beit_.* are not those of a plain ViT"),
        ({"backbone": {"name": "resnet18", "image_size": 64}}, "the blocks of resnet18 are not those of a plain ViT"),
        ({"train__accumulate": 2}, "a step in pieces has no sequence of all crops; leave out one of the two"),
    ],
)
def test_crops_that_cannot_be_packed(home: Home, changes: dict[str, Any], message: str) -> None:
    assert home.run(method="dino", train__pack_crops=True).run.train.pack_crops
    with pytest.raises(SpecError, match=rf"train\.pack_crops: {message}"):
        home.plan(method="dino", train__pack_crops=True, **changes)


@pytest.mark.parametrize("method", ["deepcluster", "sela"])
def test_more_clusters_than_samples(home: Home, method: str) -> None:
    with pytest.raises(SpecError, match=r"hyper\.clusters: 17 clusters, but .* holds 16 samples"):
        home.plan(method=method, hyper__clusters=17)


def test_a_class_that_training_does_not_know_is_named_and_one_that_validation_lacks_is_not_missed(home: Home) -> None:
    with pytest.raises(DataError, match=r"data\.val: .*foreign.* has the class 'c', which none of the 2 classes"):
        home.plan(data__val="foreign")
    run = home.run(data__val="only_b")
    assert run.val
    assert run.val.classes == ("b",)
    load = Load(run.train, run.val, Center(size=8, share=1.0))
    labels = load({"id": np.arange(run.train.num_samples + run.val.num_samples)})["label"].tolist()
    assert labels == 8 * [0] + 8 * [1] + 2 * [1], "b is 1 as in training, though it is validation's first class"


UNLABELLED = r"needs labels, and none of the 16 samples of data\.train .*bare.* has one"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data__train": "bare", "data__val": "val"}, SpecError, rf"knn: knn {UNLABELLED}"),
        (
            {"data__val": "bare"},
            SpecError,
            r"knn: knn needs labels, and none of the 16 samples of data\.val",
        ),
        (
            {"method": "supervised", "data": {"train": "bare"}, "evals": {}},
            SpecError,
            rf"d: supervised {UNLABELLED}",
        ),
        ({"data__train": "one", "data__val": "one"}, DataError, r"data\.train: all labels of .* one class, 'a'"),
        ({"method": "supervised", "data": {"train": "one"}, "evals": {}}, DataError, "of one class, 'a': any guess"),
        ({"evals__knn__k": 17}, SpecError, r"evals\.knn\.k: 17 neighbors, but train has 16 labelled samples; set"),
        ({"data__train": "few", "evals__knn__k": 3}, SpecError, "3 neighbors, but train has 2 labelled samples"),
        ({"data__train": "few", "evals": {"linear": {}}}, None, ""),
    ],
)
def test_labels_that_something_needs_are_counted_before_anything_starts(
    home: Home, changes: dict[str, Any], error: type[Exception] | None, message: str
) -> None:
    if error is None:
        assert home.run(**changes).steps == 4
        return
    with pytest.raises(error, match=rf"{PLACE}.*{message}"):
        home.plan(**changes)


@pytest.mark.parametrize(
    ("warmup", "duration", "steps"),
    [  # 16 images in batches of 8: an epoch is 2 steps
        ({"epochs": 3}, {"steps": 5}, "6 steps of warm-up .* training, 5 steps .* epoch of .* has 2"),
        ({"steps": 5}, {"epochs": 2}, "5 steps of warm-up .* training, 4 steps"),
        ({"samples": 33}, {"epochs": 2}, "5 steps of warm-up .* training, 4 steps"),
        ({"epochs": 2.5}, {"samples": 32}, "5 steps of warm-up .* training, 4 steps"),
    ],
)
def test_a_warm_up_longer_than_the_training_whatever_their_units(
    home: Home, warmup: dict[str, float], duration: dict[str, float], steps: str
) -> None:
    with pytest.raises(SpecError, match=rf"{PLACE}optim\.warmup: {steps}"):
        home.plan(optim={"warmup": warmup}, train__duration=duration)
    assert home.run(optim={"warmup": {"epochs": 2}}, train__duration={"steps": 4}).steps == 4


@pytest.mark.parametrize("method", ["mae", "untrained"])
def test_weights_are_tried_at_plan(home: Home, tmp_path: Path, method: str) -> None:
    with pytest.raises(SpecError, match=rf"{PLACE}backbone\.weights: there is no file /.*/nowhere\.pth"):
        home.plan(method=method, backbone__weights="nowhere.pth")
    path = weights(tmp_path / "w.safetensors", seed=0)
    with pytest.raises(SpecError, match=rf"{PLACE}backbone\.weights: .* does not fit vit_tiny.* \(32,\), not \(64,\)"):
        home.plan(method=method, backbone__weights=path, backbone__width=64)


SPEC = """\
name: photos
method: mae
data: {{val: {sets}/val/shards, train: {sets}/train/shards}}
backbone: {{name: vit_tiny_patch16_224, image_size: 32, patch_size: 8, width: 32, heads: 2}}
train: {{duration: {{steps: 4}}, batch: 8}}
evals: {{knn: {{k: 3}}}}
"""


@pytest.mark.parametrize(
    ("old", "new", "overrides", "message"),
    [
        ("{k: 3}", "{k: 17}", [], "{path}:6:15: evals.knn.k: 17 neighbors"),
        ("{k: 3}", "{}", [], "{path}:6:9: evals.knn.k: 20 neighbors"),
        ("{k: 3}", "{k: 17}", ["evals.knn.k=18"], "-s evals.knn.k=18: evals.knn.k: 18 neighbors"),
        ("batch: 8", "batch: 24", [], "{path}:5:31: train.batch: 24 samples a step"),
        ("/val/", "/foreign/", [], "{path}:3:8: data.val: {sets}/foreign/shards has the class 'c'"),
        ("/val/", "/nowhere/", [], "{path}:3:8: data.val: {sets}/nowhere/shards/manifest.json: missing"),
        ("", "", ["data.val=/nowhere"], "-s data.val=/nowhere: data.val: /nowhere/manifest.json: missing"),
        ("{name: vit", "{weights: no.pth, name: vit", [], "{path}:4:12: backbone.weights: there is no file"),
        ("steps: 4", "epochs: 2", ["optim.warmup.steps=5"], "-s optim.warmup.steps=5: optim.warmup: 5 steps"),
    ],
)
def test_what_planning_finds_wrong_is_told_at_its_place(
    tmp_path: Path, sets: Path, old: str, new: str, overrides: list[str], message: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(sets=sets).replace(old, new))
    with pytest.raises((SpecError, DataError)) as caught:
        plan(read(path, overrides).model_copy(update={"seeds": (1,)}), tmp_path)
    assert str(caught.value).startswith(message.format(path=path, sets=sets))
    again = pickle.loads(pickle.dumps(spec := read(path, overrides)))
    assert (again, again.root.mark) == (spec, Mark("photos"))


def test_a_place_is_in_the_file_that_says_it(tmp_path: Path, sets: Path) -> None:
    base, path = tmp_path / "base.yaml", tmp_path / "spec.yaml"
    base.write_text(SPEC.format(sets=sets))
    path.write_text("extends: base.yaml\nablate:\n  train.batch: [16, 24]\n")
    with pytest.raises(SpecError) as caught:
        expand(sweepfile.read(path), tmp_path)
    assert str(caught.value).startswith(f"{path}:3:3: train.batch: 24 samples a step")
    path.write_text("extends: base.yaml\nhyper: {mask_ratio: 0.5}\n")
    base.write_text(base.read_text().replace("k: 3", "k: 17"))
    with pytest.raises(SpecError) as caught:
        plan(read(path), tmp_path)
    assert str(caught.value).startswith(f"{base}:6:15: evals.knn.k: 17 neighbors")


def test_a_cnn_without_a_map_of_its_vectors(home: Home) -> None:
    mobile = {"backbone": {"name": "mobilenetv3_small_050", "image_size": 32}}
    with pytest.raises(SpecError, match=r"backbone\.name: mobilenetv3_small_050 has no feature map of the 1024 chan"):
        home.plan(method="densecl", **mobile)
    assert home.run(method="simclr", **mobile).steps == 4


def test_a_cnn_that_is_too_narrow_for_a_cpu(home: Home) -> None:
    """Nothing of it is computed here: it would damage this process's memory."""
    narrow = {"backbone": {"name": "resnet18", "image_size": 32, "width": 15}}
    message = rf"{PLACE}backbone\.width: .* can crash torch on a CPU, .*; expected 16 or more, or GPUs"
    for method in ("simclr", "untrained"):
        with pytest.raises(SpecError, match=message):
            home.plan(method=method, **narrow)
    assert home.run(method="simclr", resources__gpus_per_worker=1, **narrow).steps == 4
    narrow["backbone"]["width"] = 16
    assert home.run(method="simclr", **narrow).steps == 4


def test_a_network_of_another_image_size(home: Home) -> None:
    message = rf"{PLACE}backbone\.name: inception_v3 cannot see images of 32 pixels: .*Kernel"
    with pytest.raises(SpecError, match=message):
        home.plan(method="simclr", backbone={"name": "inception_v3", "image_size": 32})


def test_a_swin_is_planned_for_dense_methods_and_refused_where_tokens_are_left_out(home: Home) -> None:
    swin = {"name": "swin_tiny_patch4_window7_224", "image_size": 64}
    assert home.run(method="densecl", backbone=swin).steps == 4
    with pytest.raises(
        SpecError, match=rf"{PLACE}backbone\.name: mae works on tokens, which swin_tiny\S+ does not take"
    ):
        home.plan(method="mae", backbone=swin)
    small = r"backbone\.name: swin_tiny\S+ cannot see images of 96 pixels: .*\(64\)"
    with pytest.raises(SpecError, match=small):
        home.plan(method="dino", backbone=swin)
