"""Samples that lack a caption, a depth map or classes: their index, and what each policy makes of them in training."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tiny import BACKBONE

from selfsup.errors import SpecError
from selfsup.pipelines import cost, lacking
from selfsup.pipelines.data import manifest, shards
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

NUMBER, SIDE = 48, 32
LACKING: dict[str, Callable[[int], bool]] = {  # of numbers of samples
    "text": lambda n: n % 4 == 0,
    "depth": lambda n: n % 3 == 0,
    "seg": lambda n: n % 5 == 0,
}
TEXT = {"text": {"length": 8, "width": 32, "depth": 1, "heads": 2}}
METHODS: dict[str, dict[str, Any]] = {
    "clip": {"input": TEXT, "hyper": {"dim": 16}},
    "m3ae": {"input": {"text": {"length": 8}}, "hyper": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}},
    "multimae": {"hyper": {"classes": 9, "class_dim": 4, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}},
}


def sample(number: int) -> AnnotatedSample:
    """Return an image as bright as its number says, with all that this number does not lack."""
    flat = np.full((SIDE, SIDE), 1 + number % 8, np.uint8)
    depth, beside = png(100 * flat.astype(np.uint16)), {"text": ("txt", b"n%d" % number)}
    beside |= {"depth": ("depth.png", depth), "seg": ("seg.png", png(flat))}
    own = dict(part for name, part in beside.items() if not LACKING[name](number))
    return AnnotatedSample(
        f"{number:03d}", {"jpg": jpeg(np.full((SIDE, SIDE, 3), 5 * number, np.uint8), quality=95), **own}, number % 2
    )


def packed(folder: Path, numbers: Iterable[int] = range(NUMBER)) -> Manifest:
    return pack_annotated(map(sample, numbers), folder, classes=["even", "odd"], shard_size=11)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return packed(tmp_path_factory.mktemp("lacking"))


def planned(data: Manifest, folder: Path, method: str, policy: str = "fail", val: Manifest | None = None) -> PlannedRun:
    splits = {"train": data.root} | ({"val": val.root} if val else {})
    spec = {"name": "l", "method": method, "data": splits, "backbone": BACKBONE, "baselines": False}
    spec |= METHODS[method] | {"train": {"duration": {"steps": 6}, "batch": 8}}
    spec["stream"] = {"lacking": policy, "lanes": 4, "chunk": 2, "mix": 2}
    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    [run] = plan(read(folder / "spec.yaml"), folder / "home")
    return run


def rows(run: PlannedRun, lanes: Iterable[int] = range(4), first: int = 0) -> list[dict[str, NDArray]]:
    views = Task(run.run, run.learned, run.order, run.size, Path(), {}, run.stats).views
    stream = SampleStream(run.learned, run.order, views, 12, lacking.masked(run.run, run.train))
    return list(stream.rows([*lanes], first, 12, threads=2, memory=2**24))


def numbers(row: dict[str, NDArray]) -> list[int]:
    return [round(image.mean() / 5) for image in row["view0"]]


def told(tokens: NDArray) -> str:
    return bytes(number for number in tokens[:, 0].tolist() if 0 <= number < 256).decode()


def test_what_some_samples_lack_is_indexed_apart_and_counted(data: Manifest, tmp_path: Path) -> None:
    assert (list(data.fields), data.annotations, {*data.beside}) == (["image"], (), {*LACKING})
    assert data.lacking == {name: sum(map(lacks, range(NUMBER))) for name, lacks in LACKING.items()}
    assert manifest.load(data.root).lacking == data.lacking
    assert shards.check(data.root) == []
    remarks: list[str] = []
    assert shards.index(data.root, out=str(tmp_path), remark=remarks.append).digest == data.digest
    assert [remark for remark in remarks if "32 of 48 samples have depth; `stream.lacking` says" in remark]
    index = np.random.default_rng(0).permutation(NUMBER)
    for name, lacks in LACKING.items():
        for number, own in zip(index.tolist(), SampleReader(data, name).read(index), strict=True):
            assert bool(own.data) == (not lacks(number))
            assert own.label == number % 2


def test_left_out_training_is_that_on_the_others_alone(data: Manifest, tmp_path: Path) -> None:
    """Rows are those of shards that hold no other samples; the part is in the key, and in what a plan says."""
    run = planned(data, tmp_path / "all", "clip", "skip")
    other = planned(packed(tmp_path / "part", (n for n in range(NUMBER) if n % 4)), tmp_path / "own", "clip")
    assert (run.learned.num_samples, run.size.num_samples, run.order) == (36, 36, other.order)
    for ours, theirs in zip(rows(run), rows(other), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        assert [told(tokens) for tokens in ours["view1"]] == [f"n{number}" for number in numbers(ours)]
    assert run.pretrain.identity["subset"] == {"having": ["text"]}
    assert ("lacking", "12 of 48 samples have no text: left out") in cost.facts(run)
    both = planned(data, tmp_path / "both", "multimae", "skip")
    assert both.learned.num_samples == sum(n % 3 > 0 and n % 5 > 0 for n in range(NUMBER))


def test_masked_out_samples_stay_and_have_nothing_there(data: Manifest, tmp_path: Path) -> None:
    run = planned(data, tmp_path, "multimae", "mask")
    assert run.learned is run.train
    assert "subset" not in run.pretrain.identity
    seen = set()
    for row in rows(run):
        assert not len(row["bad"])
        for place, number in enumerate(numbers(row)):
            assert number == row["index"][place]
            depth, classes = row["view1"][place], row["map0"][place]
            assert np.isnan(depth).all() if number % 3 == 0 else np.allclose(depth, (1 + number % 8) / 10)
            assert (classes == (-1 if number % 5 == 0 else 1 + number % 8)).all()
            seen.add(number)
    assert seen == set(range(NUMBER))
    for row in rows(planned(data, tmp_path, "m3ae", "mask")):
        texts = [told(tokens) for tokens in row["view1"]]
        assert texts == [f"n{number}" if number % 4 else "" for number in numbers(row)]


@pytest.mark.parametrize(("method", "policy"), [("clip", "skip"), ("multimae", "mask")])
def test_rows_are_those_of_any_worker_and_any_start(data: Manifest, tmp_path: Path, method: str, policy: str) -> None:
    run = planned(data, tmp_path, method, policy)
    whole, halves = rows(run), [rows(run, lanes) for lanes in ([0, 2], [1, 3])]
    for name in whole[0].keys() - {"bad"}:
        for step, row in enumerate(whole):
            parts = [half[step][name].reshape(2, 2, *row[name].shape[1:]) for half in halves]
            np.testing.assert_array_equal(np.stack(parts, 1).reshape(row[name].shape), row[name])
        np.testing.assert_array_equal(rows(run, first=7)[0][name], whole[7][name])


@pytest.mark.parametrize(
    ("method", "policy", "message"),
    [
        ("clip", "fail", "12 of 48 samples of .* have no text, which clip reads: stream.lacking=skip leaves them out"),
        ("multimae", "fail", "have no depth, which multimae reads: .* stream.lacking=mask learns from what they have"),
        ("clip", "mask", "its loss is of samples that have it: stream.lacking=skip leaves them out"),
    ],
)
def test_what_a_policy_cannot_be(data: Manifest, tmp_path: Path, method: str, policy: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        planned(data, tmp_path, method, policy)


def test_without_a_sample_that_has_all_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    few = packed(tmp_path / "few", [3, 5])
    with pytest.raises(SpecError, match=r"no sample of .* has depth and seg, which multimae reads"):
        planned(few, tmp_path / "spec", "multimae", "skip")


def test_pictures_are_of_samples_that_have_all(data: Manifest, tmp_path: Path) -> None:
    few, bare = (packed(tmp_path / name, numbers) for name, numbers in (("few", range(8)), ("bare", [0, 12, 24])))

    def shown(val: Manifest, policy: str) -> tuple[str, int]:
        part = planned(data, tmp_path / "spec", "m3ae", policy, val).shown
        return part.root, part.num_samples

    assert (shown(few, "skip"), shown(few, "mask")) == ((few.root, 6), (few.root, 8))
    assert (shown(bare, "skip"), shown(bare, "mask")) == ((data.root, 36), (data.root, 48))


@pytest.mark.usefixtures("cluster")
def test_a_whole_run_counts_them(data: Manifest, tmp_path: Path) -> None:
    run = planned(data, tmp_path, "multimae", "mask")
    perform(run)
    summary = json.loads((run.pretrain.folder / "summary.json").read_text())
    assert (summary["lacking_samples"], summary["bad_samples"]) == (22.0, 0.0)
