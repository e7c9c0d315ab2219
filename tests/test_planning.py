"""What makes a stage's key and a run's id, and what does not."""

import gc
import io
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from selfsup.encoder import build
from selfsup.errors import DataError, SpecError
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.shards import index
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan, unique
from selfsup.pipelines.stages.evaluate import Load
from selfsup.pipelines.stages.runner import perform
from selfsup.saved import save_encoder
from selfsup.sections import Backbone
from selfsup.source import Mark
from selfsup.spec import read
from selfsup.stage import Stage
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.views import Center

METHOD = {
    "name": "photos",
    "method": "mae",
    "data": {"train": "train", "val": "val"},
    "backbone": {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "width": 32, "heads": 2},
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {"k": 3}, "linear": {}},
}

TINY = Backbone(**METHOD["backbone"])
PLACE = r"/spec\.yaml:\d+:\d+: "


def shards(folder: Path, *, classes: str, number: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for name in classes or ("",):
        (folder / "images" / name).mkdir(parents=True)
        for each in range(number):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{each}.png")
    pack(folder / "images", folder / "shards")


def relabelled(source: Path, out: Path, labels: str) -> None:
    """The images of some shards, with labels for as many of them as there are, and the same names of classes."""
    out.mkdir(parents=True)
    with tarfile.open(next(source.glob("*.tar"))) as old, tarfile.open(out / "0.tar", "w") as new:
        images = [member for member in old.getmembers() if member.name.endswith((".jpg", ".png"))]
        for number, member in enumerate(images):
            new.addfile(member, old.extractfile(member))
            if number < len(labels):
                label = tarfile.TarInfo(f"{member.name.rpartition('.')[0]}.cls")
                label.size = 1
                new.addfile(label, io.BytesIO(labels[number].encode()))
    index(str(out))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    shards(root / "train", classes="ab", number=8, seed=0)
    shards(root / "val", classes="ab", number=2, seed=1)
    shards(root / "other", classes="ab", number=8, seed=2)
    shards(root / "foreign", classes="ac", number=2, seed=3)
    shards(root / "only_b", classes="b", number=2, seed=4)
    shards(root / "one", classes="a", number=16, seed=5)
    shards(root / "bare", classes="", number=16, seed=6)
    relabelled(root / "train" / "shards", root / "few" / "shards", labels="ab")
    return root


class Home:
    """Plans specs made of METHOD and changes to it, given as dotted paths."""

    def __init__(self, folder: Path, sets: Path) -> None:
        self.folder, self.sets = folder, sets

    def plan(self, **changes: Any) -> tuple[PlannedRun, ...]:
        spec: dict[str, Any] = yaml.safe_load(yaml.safe_dump(METHOD))
        for path, value in changes.items():
            *sections, name = path.split("__")
            place = spec
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
        for split, name in spec["data"].items():
            spec["data"][split] = name if name.startswith("/") else str(self.sets / name / "shards")
        path = self.folder / "spec.yaml"
        path.write_text(yaml.safe_dump(spec))
        return plan(read(path), self.folder)

    def run(self, **changes: Any) -> PlannedRun:
        return self.plan(**changes)[-1]


@pytest.fixture
def home(tmp_path: Path, sets: Path) -> Home:
    return Home(tmp_path, sets)


def keys(run: PlannedRun) -> dict[str, str]:
    return {stage.kind: stage.key for stage in run.stages}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"optim__lr": 1.5e-4, "hyper__mask_ratio": 0.75, "optim__name": "adamw"}, id="defaults written out"
        ),
        pytest.param({"resources__workers": 2, "resources__data_cpus": 0.5}, id="what it runs on"),
        pytest.param(
            {"train__log_every": 1, "train__checkpoint_every": 1, "stream__bad_share": 1.0}, id="how it is kept"
        ),
        pytest.param({"embed__batch": 1}, id="images at a time"),
        pytest.param({"name": "another", "baselines": False}, id="what it goes by"),
    ],
)
def test_what_changes_no_result_changes_no_key_and_no_id(home: Home, changes: dict[str, Any]) -> None:
    before, after = home.run(), home.run(**changes)
    assert keys(after) == keys(before)
    assert after.id == before.id


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_many_arms_hold_the_open_files_and_rows_of_one(home: Home, sets: Path) -> None:
    def files_and_rows() -> tuple[int, int]:
        paths = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        rows = {id(manifest.rows) for run in arms for manifest in (run.train, run.val) if manifest}
        return sum(path.is_relative_to(sets) for path in paths), len(rows)

    arms = [*home.plan(baselines=False)]
    gc.collect()
    before = files_and_rows()
    for number in range(1, 20):
        arms += home.plan(baselines=False, hyper__mask_ratio=number / 100)
    gc.collect()
    assert (len(arms), before[1]) == (20, 2)
    assert files_and_rows() == before


def test_data_indexed_anew_is_planned_anew(home: Home, sets: Path) -> None:
    folder = shutil.copytree(sets / "train" / "shards", home.folder / "changing")
    before = home.run(data__train=str(folder))
    shutil.copytree(sets / "other" / "shards", folder, dirs_exist_ok=True)
    after = home.run(data__train=str(folder))
    assert after.id == home.run(data__train="other").id != before.id
    assert home.run(data__train=str(folder)).train is after.train is not before.train


def test_data_may_move(home: Home, sets: Path, tmp_path: Path) -> None:
    moved = [shutil.copytree(sets / split / "shards", tmp_path / "moved" / split) for split in ("train", "val")]
    after = home.run(data__train=str(moved[0]), data__val=str(moved[1]))
    assert keys(after) == keys(home.run())


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"evals__knn__k": 4}, {"knn"}),
        ({"embed__crop": 1.0}, {"embed", "knn", "linear"}),
        ({"data__val": "other"}, {"pictures", "embed", "knn", "linear"}),
        ({"data__train": "other"}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"seeds": [1]}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"hyper__mask_ratio": 0.5}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"optim__lr": 1e-3}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"train__duration__steps": 5}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"backbone__depth": 1}, {"pretrain", "pictures", "embed", "knn", "linear"}),
        ({"stream__mix": 8}, {"pretrain", "pictures", "embed", "knn", "linear"}),
    ],
)
def test_a_change_reaches_the_stages_that_depend_on_it_and_no_other(
    home: Home, changes: dict[str, Any], kinds: set[str]
) -> None:
    before = home.run()
    after = home.run(**changes)
    assert {kind for kind, key in keys(after).items() if keys(before)[kind] != key} == kinds
    assert after.id != before.id


def test_one_changed_byte_of_an_image_is_other_data(home: Home, sets: Path, tmp_path: Path) -> None:
    shutil.copytree(sets / "train" / "images", tmp_path / "images")
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a" / "0.png")
    pack(tmp_path / "images", tmp_path / "changed")
    assert keys(home.run(data__train=str(tmp_path / "changed")))["pretrain"] != keys(home.run())["pretrain"]


def test_stages_come_in_the_order_of_their_dependence(home: Home) -> None:
    pixels, untrained, mae = home.plan()
    assert [stage.kind for stage in mae.stages] == ["pretrain", "pictures", "embed", "knn", "linear"]
    assert [stage.kind for stage in untrained.stages] == ["embed", "knn", "linear"]
    assert [stage.kind for stage in pixels.stages] == ["embed", "knn", "linear"]
    assert [stage.kind for stage in home.run(method="simclr").stages] == ["pretrain", "embed", "knn", "linear"]
    [alone] = home.plan(data={"train": "train"}, evals={})
    assert [stage.kind for stage in alone.stages] == ["pretrain", "pictures"]


def test_the_untrained_encoder_differs_from_seed_to_seed_and_pixels_do_not(home: Home) -> None:
    runs = {(each.run.method, each.run.seed): keys(each)["embed"] for each in home.plan(seeds=2)}
    assert runs["untrained", 0] != runs["untrained", 1]
    assert runs["pixels", 0] == runs["pixels", 1]


def test_baselines_that_specs_share_count_once(home: Home) -> None:
    both = [*home.plan(seeds=2), *home.plan(seeds=2, method="simclr")]
    assert len(both) == 12
    labels = [each.label for each in unique(both)]
    assert {label: labels.count(label) for label in labels} == {
        "raw pixels": 2,
        "random encoder": 2,
        "mae": 2,
        "simclr": 2,
    }


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
    assert home.run(method="dino", **without).run.method == "dino"


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


def weights(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    save_encoder(encoder := build(TINY), TINY, path)
    assert encoder.dim == 32
    return str(path)


def test_given_weights_are_known_by_what_is_in_their_file(home: Home, tmp_path: Path) -> None:
    path, moved = tmp_path / "w.safetensors", tmp_path / "moved.safetensors"
    weights(path, seed=0)
    before = [keys(each) for each in home.plan(backbone__weights=str(path))]
    shutil.copyfile(path, moved)
    assert [keys(each) for each in home.plan(backbone__weights=str(moved))] == before
    weights(path, seed=1)
    after = [keys(each) for each in home.plan(backbone__weights=str(path))]
    assert before[0] == after[0], "raw pixels know no weights"
    assert all(before[each][kind] != key for each in (1, 2) for kind, key in after[each].items())


def test_weights_that_change_after_the_plan_are_noticed(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    run = home.run(backbone__weights=weights(path, seed=0))
    assert run.id == replace(run).id
    weights(path, seed=1)
    with pytest.raises(SpecError, match=r"backbone\.weights: .*w\.safetensors has changed"):
        perform(run)


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


def test_a_default_that_changed_is_noticed(tmp_path: Path) -> None:
    before = Stage("pretrain", {"seed": 0}, {"seed": 0, "optim": {"lr": 0.1, "betas": (0.9, 0.95)}}, tmp_path)
    after = Stage("pretrain", {"seed": 0}, {"seed": 0, "optim": {"lr": 0.2, "betas": (0.9, 0.95)}}, tmp_path)
    assert before.key == after.key
    before.claim()
    before.claim()  # going on with the same work
    with pytest.raises(SpecError) as caught:
        after.claim()
    assert str(before.folder) in str(caught.value)
    assert "optim.lr: 0.2 here, 0.1 there" in str(caught.value)
    assert "betas" not in str(caught.value)


def test_a_stage_is_done_when_it_has_a_result(tmp_path: Path) -> None:
    stage = Stage("knn", {"seed": 0}, {"seed": 0}, tmp_path)
    stage.claim()
    assert not stage.done
    stage.finish({"top1": 50.0})
    assert stage.done
    assert stage.result() == {"top1": 50.0}
    assert stage.space == "eval/knn"


def test_threads_make_the_batches_but_on_a_cluster_unless_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (home.run().feeder, home.run(stream__feeder="ray").feeder) == ("threads", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    assert (home.run().feeder, home.run(stream__feeder="threads").feeder) == ("ray", "threads")
