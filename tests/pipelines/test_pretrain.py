"""Training runs on a real Ray, whole, killed, split over workers and on damaged data; then the stages that follow."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
import yaml
from PIL import Image
from ray.train.v2.api.preemption import PreemptionInfo
from safetensors.torch import load_file
from toy_training import EVERY, STEPS, TINY, distance, folder, kill_after, losses, trained, workers

from selfsup import hits
from selfsup.errors import DataError, PreemptedError, SelfsupError
from selfsup.evaluator import load as load_evaluator
from selfsup.evaluator import numbers
from selfsup.failures import Failure, classify
from selfsup.metrics_log import records
from selfsup.parts.patch import patchify
from selfsup.pipelines.cluster.slot import Slot
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.pixels.augment import normalize
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import evaluate
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.pictures import fixed_batch, pictures
from selfsup.pipelines.stages.runner import perform
from selfsup.pipelines.stages.worker import build
from selfsup.saved import restore_encoder
from selfsup.sealed import damage, sealed
from selfsup.sections import Feeder
from selfsup.spec import read
from selfsup.views import Center

pytestmark = pytest.mark.usefixtures("cluster")
ODD = "home %41 #1?x=1&y"  # a path that an URL would be misread from
MEMORY = 2**26  # bytes
TRAIN, VAL, VICTIM = 100, 20, 0  # samples, and the training sample that cannot be decoded


def normalized(images: torch.Tensor, manifest: Manifest) -> torch.Tensor:
    stats = manifest.fields["image"]
    return normalize(images, mean=stats.mean, std=stats.std)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest], spoil: Callable[..., None]) -> Path:
    root = tmp_path_factory.mktemp("sets")
    spoil(make(root / "train", number=TRAIN), [VICTIM], keep=0)
    make(root / "val", number=VAL, seed=1)
    return root


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, sets: Path) -> Callable[..., PlannedRun]:
    """A run of TINY in a home of its own, with changes given as section={name: value}."""

    def planned(train: Path = sets / "train", **changes: dict[str, Any]) -> PlannedRun:
        home = tmp_path_factory.mktemp(ODD)
        data = {"train": str(train / "shards"), "val": str(sets / "val" / "shards")}
        told: dict[str, Any] = TINY | {"data": data}
        for section, values in changes.items():
            told |= {section: told.get(section, {}) | values}
        (home / "spec.yaml").write_text(yaml.safe_dump(told))
        (only,) = plan(read(home / "spec.yaml"), home)
        return only

    return planned


def victim(each: PlannedRun) -> str:
    return SampleReader(each.train, "image").read(np.array([VICTIM]))[0].key


@pytest.fixture(scope="module")
def straight(planned: Callable[..., PlannedRun]) -> PlannedRun:
    """Trained without disturbance."""
    each = planned()
    assert trained(each)["bad_samples"] == 1.0
    return each


def stream_of(each: PlannedRun) -> SampleStream:
    views = Task(each.run, each.train, each.order, each.info, Path(), {}, each.stats).views
    return SampleStream(each.train, each.order, views, each.steps)


@pytest.mark.parametrize(("rank", "world", "start"), [(0, 1, 0), (0, 1, 37), (1, 2, STEPS - 1), (0, 1, STEPS)])
def test_tasks_of_ray_make_the_very_rows_that_threads_make(
    planned: Callable[..., PlannedRun], rank: int, world: int, start: int
) -> None:
    each = planned()
    ray_feed = Feed(stream_of(each), rank, world, "ray", cpus=1.0, memory=MEMORY)
    expected = list(replace(ray_feed, feeder="threads").steps(start))
    rows = list(ray_feed.steps(start))
    assert len(rows) == len(expected) == STEPS - start
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_array_equal(row[name], other[name], err_msg=name)


def test_a_sample_that_cannot_be_decoded_is_survived_counted_and_named(straight: PlannedRun) -> None:
    assert (folder(straight) / "bad-0.txt").read_text() == victim(straight) + "\n"
    *_, last = records(folder(straight) / "metrics.jsonl")
    assert last.values["bad_samples"] == 1.0
    assert 0 < last.values["input_wait"] < 1


def test_a_killed_run_ends_as_if_nothing_had_happened(planned: Callable[..., PlannedRun], straight: PlannedRun) -> None:
    each, before = planned(), len(workers())
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(trained, each)
        reached = kill_after(8, each, result.done)
        assert reached < STEPS
        assert result.result()["bad_samples"] == 1.0
    assert len(workers()) - before == 2
    _assert_same(each, straight)
    assert (folder(each) / "bad-0.txt").read_text() == victim(each) + "\n"


def test_a_damaged_checkpoint_changes_nothing(planned: Callable[..., PlannedRun], straight: PlannedRun) -> None:
    """A bit of the latest is flipped."""
    each, before, latest = planned(), f"checkpoint_{STEPS - EVERY:09d}", f"checkpoint_{STEPS:09d}"
    for name in (before, latest):
        shutil.copytree(folder(straight) / name, folder(each) / name)
    with (folder(each) / latest / "state.pt").open("r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    spooled = (folder(straight) / "metrics.jsonl").read_text()
    (folder(each) / "metrics.jsonl").write_text(spooled[: spooled.index(f'{{"commit":{STEPS - EVERY},') + 4])
    trained(each)
    _assert_same(each, straight)
    assert (folder(each) / "bad-checkpoints.txt").read_text() == (
        f"{folder(each) / latest}: cannot read the checkpoint: state.pt is not as it was written\n"
    )
    assert [damage(folder(each) / name) for name in (before, latest)] == ["", ""]


def test_evaluations_on_the_way_change_no_digit_of_training(
    planned: Callable[..., PlannedRun], straight: PlannedRun
) -> None:
    """On the two CPUs of this Ray, which training may have all: they are made all the same."""
    each = planned(evals={"every": {"steps": 25}}, resources={"data_cpus": 1.0})
    perform(each)
    _assert_same(each, straight)
    for name, probe in each.probes.items():
        assert [record.step for record in records(probe.spool)] == [25, 50]
        assert all(0 <= record.values["top1"] <= 100 for record in records(probe.spool)), name
        assert not (probe.folder / "bad-evaluations.txt").exists()
    assert not (folder(each) / "snapshots").exists()


def _assert_same(each: PlannedRun, other: PlannedRun) -> None:
    """Digit for digit."""
    assert losses(each) == losses(other)
    for name in ("encoder", "method"):
        ours, theirs = (load_file(folder(run) / f"{name}.safetensors") for run in (each, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[weight], theirs[weight]) for weight in ours)


def test_two_workers_fed_by_ray_train_as_one_fed_by_threads(
    planned: Callable[..., PlannedRun], straight: PlannedRun
) -> None:
    """They differ by the order of a sum: by less than a thousandth of the way that the weights have gone."""
    each = planned(resources={"workers": 2, "cpus_per_worker": 0.5}, stream={"feeder": "ray"})
    assert straight.feeder == "threads"
    trained(each)
    for step, loss in losses(straight).items():
        assert losses(each)[step] == pytest.approx(loss, rel=1e-4)
    first = build(each.run, each.info, torch.device("cpu")).state_dict()
    one, two = (load_file(folder(run) / "method.safetensors") for run in (straight, each))
    way, apart = distance(one, first), distance(one, two)
    assert way > 0.1
    assert apart < 1e-3 * way


@pytest.mark.parametrize("feeder", ["ray", "threads"])
def test_an_error_of_the_data_is_told_without_ray_around_it(
    planned: Callable[..., PlannedRun], sets: Path, tmp_path: Path, feeder: Feeder
) -> None:
    shutil.copytree(sets / "train" / "shards", tmp_path / "shards")
    (tmp_path / "shards" / "000001.tar").unlink()
    with pytest.raises(SelfsupError) as caught:
        list(Feed(stream_of(planned(tmp_path)), 0, 1, feeder, cpus=1.0, memory=MEMORY).steps(0))
    shard, folder = tmp_path / "shards" / "000001.tar", tmp_path / "shards"
    said = f"{shard}: missing; put it back, or run `selfsup shards index {folder}`"
    assert classify(caught.value) == Failure("user error", "DataError", said)


@pytest.fixture(scope="module")
def failures(
    planned: Callable[..., PlannedRun], sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Runs on damaged data side by side, by what is wrong: the error of each. workers: how many were started."""
    missing, cut = (tmp_path_factory.mktemp(name) for name in ("missing", "cut"))
    for copy in (missing, cut):
        shutil.copytree(sets / "train" / "shards", copy / "shards")
    (missing / "shards" / "000001.tar").unlink()
    os.truncate(cut / "shards" / "000002.tar", 10_240)
    little = {"cpus_per_worker": 0.3, "data_cpus": 0.3}
    runs = {
        "missing": planned(missing, resources=little),
        "cut": planned(cut, resources=little),
        "bad": planned(resources=little, stream={"bad_share": 0.0}),
    }
    before = len(workers())
    with ThreadPoolExecutor(len(runs)) as pool:
        asked = {name: pool.submit(trained, each) for name, each in runs.items()}
    errors = {name: future.exception() for name, future in asked.items()}
    return errors | {"workers": len(workers()) - before}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", r"missing.*/shards/000001\.tar"),
        ("cut", r"cut.*/shards/000002\.tar: 10240 bytes, but \d+ when it was indexed"),
        ("bad", r"1 of 100 samples cannot be decoded, more than stream.bad_share: 0.0"),
    ],
)
def test_damaged_data_end_a_run_with_one_error(failures: dict[str, Any], what: str, said: str) -> None:
    error = failures[what]
    assert type(error) is DataError
    with pytest.raises(SelfsupError, match=said):
        raise error
    assert len(str(error).splitlines()) == 1


def test_a_run_whose_machines_were_taken_away_says_so(
    planned: Callable[..., PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(*_: object) -> None:
        raise ray.train.PreemptionError(PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"a": [1]}))

    monkeypatch.setattr(Slot, "perform", perform)
    with pytest.raises(PreemptedError, match=r"interrupted by node preemption \(preempted_ranks=\[1\].*error\.txt"):
        trained(planned())


def test_a_controller_that_was_killed_is_one_line(
    planned: Callable[..., PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(*_: object) -> None:
        raise ray.exceptions.ActorDiedError

    monkeypatch.setattr(Slot, "perform", perform)
    with pytest.raises(SelfsupError, match=r"controller has died .*; the same command continues$") as told:
        trained(planned())
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_an_error_of_the_data_is_not_tried_again(failures: dict[str, Any]) -> None:
    """One worker meets it, the next finds it noted; max_failures is 3."""
    assert failures["workers"] <= 2 * 3


@pytest.fixture(scope="module")
def embedded(straight: PlannedRun) -> dict[str, float]:
    straight.embeds["knn"].claim()
    return evaluate.embed(straight, straight.embeds["knn"])


def test_features_are_what_the_trained_encoder_makes_of_every_image(
    straight: PlannedRun, embedded: dict[str, float]
) -> None:
    assert straight.val
    assert embedded == {"samples": TRAIN + VAL - 1.0, "undecodable": 1.0}
    got = evaluate.features(straight.embeds["knn"].folder, 2)
    size, share = straight.run.backbone.image_size, straight.run.embed.crop
    columns = evaluate.Load(straight.train, straight.val, Center(size=size, share=share))(
        {"id": np.arange(TRAIN + VAL)}
    )
    images = torch.tensor(columns["sample"]).permute(0, 3, 1, 2) / 255
    view = normalized(images, straight.train)
    with torch.inference_mode():
        made = restore_encoder(folder(straight) / "encoder.safetensors").eval().pooled(patchify(view, 8)).numpy()
    np.testing.assert_allclose(np.concatenate([got.train, got.val]), made, atol=1e-5)
    labels = [0 if number < TRAIN / 2 else 1 for number in range(TRAIN) if number != VICTIM]
    assert got.train_label.tolist() == labels
    assert got.val_label.tolist() == [0] * (VAL // 2) + [1] * (VAL // 2)


@pytest.mark.usefixtures("embedded")
def test_features_are_in_order_whatever_task_wrote_which(straight: PlannedRun, tmp_path: Path) -> None:
    table = pq.read_table(straight.embeds["knn"].folder / "features")
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    with sealed(tmp_path / "features") as made:
        pq.write_table(mixed[:70], made / "b.parquet")
        pq.write_table(mixed[70:], made / "a.parquet")
    for one, other in zip(
        evaluate.features(tmp_path, 2), evaluate.features(straight.embeds["knn"].folder, 2), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("what", ["flipped", "lost"])
def test_damaged_features_are_refused(straight: PlannedRun, tmp_path: Path, what: str) -> None:
    shutil.copytree(straight.embeds["knn"].folder / "features", tmp_path / "features")
    file = max((tmp_path / "features").glob("*.parquet"))
    data = file.read_bytes()
    file.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    if what == "lost":
        file.unlink()
    with pytest.raises(DataError, match=rf"{file.name}.*remove {tmp_path} and run"):
        evaluate.features(tmp_path, 2)


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("name", ["knn", "linear"])
def test_probes_read_the_features(straight: PlannedRun, name: str) -> None:
    result = evaluate.probe(straight, straight.probes[name])
    features = evaluate.features(straight.embeds["knn"].folder, 2)
    here = dict(load_evaluator(name)(straight.evals[name].hyper).run(features, seed=0))
    assert result == pytest.approx(numbers(here) | {"images": len(features.val)})
    seen = hits.read((straight.probes[name].folder / hits.NAME).read_bytes())
    assert seen is not None
    np.testing.assert_equal(dict(seen.right), {"top1": here["top1"]})
    assert 0 <= result["top1"] <= 100


def test_pictures_show_masked_predicted_and_original(straight: PlannedRun) -> None:
    [drawing] = straight.drawings
    assert straight.val
    drawing.claim()
    pictures(straight, drawing)
    with Image.open(drawing.folder / "reconstructions.png") as sheet:
        assert sheet.size == (8 * (4 * 32 + 4) + 4, 3 * (4 * 32 + 4) + 4)  # eight images, four times enlarged
        pixels = np.asarray(sheet)
    masked, predicted, original = (
        np.stack([pixels[y : y + 128 : 4, x : x + 128 : 4] for x in range(4, 1060, 132)]) for y in (4, 136, 268)
    )
    load = evaluate.Load(straight.val, straight.val, Center(size=32, share=1.0))
    numbers = np.linspace(0, VAL - 1, 8).astype(int)
    np.testing.assert_array_equal(original, load({"id": numbers})["sample"])
    hidden = _patches(masked != original).any(axis=-1)
    assert hidden.sum(axis=1).tolist() == [12] * 8  # three quarters of 16
    np.testing.assert_array_equal(_patches(predicted != original).any(axis=-1), hidden)


def _patches(image: np.ndarray) -> np.ndarray:
    """(8, 32, 32, 3) -> (8, 16, 192)"""
    return image.reshape(8, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(8, 16, 192)


def test_pictures_show_the_next_of_what_cannot_be_decoded(planned: Callable[..., PlannedRun]) -> None:
    each = planned()
    assert VICTIM in np.linspace(0, TRAIN - 1, 8).astype(int)
    batch = fixed_batch(each, each.train, build(each.run, each.info, torch.device("cpu")))
    assert batch.sample[0] == VICTIM
    load = evaluate.Load(each.train, each.train, Center(size=32, share=1.0))
    [image] = normalized(
        torch.from_numpy(load({"id": np.array([VICTIM + 1])})["sample"]).movedim(-1, 1) / 255, each.train
    )
    assert batch.views[0].value.value[0].equal(patchify(image[None], 8).value[0])
