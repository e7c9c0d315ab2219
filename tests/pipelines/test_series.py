"""Series by NumPy and torch: formats, slices, changes, statistics, packing and whole runs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from arrays import npy, npz
from PIL import Image

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.errors import DataError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo, load, names
from selfsup.modality import DecodeError
from selfsup.modality import load as load_modality
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.tars import write_tar
from selfsup.pipelines.modalities.series import Series, SeriesInput, SeriesReading, SeriesStats, Slice
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Backbone, InputShape
from selfsup.spec import read
from selfsup.views import Crop, Views

SERIES = load_modality("series")
assert isinstance(SERIES, Series)
READING = SeriesReading()
KNOBS = SeriesInput(points=32)
WHOLE = Slice(knobs=KNOBS, is_random=False)
STATS = SeriesStats(channels=2, mean=(1.0, -1.0), std=(2.0, 0.5))
BACKBONE = {"name": "vit_tiny_patch16_224", "patch_size": 4, "width": 32, "depth": 1, "heads": 2}


def shown(data: bytes, view: Slice, *draws: float) -> np.ndarray:
    box = SERIES.place(view, np.array([SERIES.extent(data, READING)]), np.array([draws or (0.0, 0.0)]))
    return SERIES.load(data, box, [view], READING)[0]


VALUES = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
TEXT = "\n".join(",".join(map(str, row)) for row in VALUES.tolist())


@pytest.mark.parametrize(
    "data", [npy(VALUES), npy(VALUES.astype(np.float64)), npz(signal=VALUES), TEXT.encode(), f"x,y\n{TEXT}\n".encode()]
)
def test_a_series_is_the_same_in_each_format(data: bytes) -> None:
    assert SERIES.extent(data, READING) == (50,)
    np.testing.assert_allclose(shown(data, WHOLE), VALUES[9:41], rtol=1e-6)
    SERIES.check(data, SeriesReading(channels=2))
    with pytest.raises(DecodeError, match="2 channels, where others have 3"):
        SERIES.check(data, SeriesReading(channels=3))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"a\nb", b"1,2\n3", npy(VALUES)[:60], npy(VALUES)[:-9], npy(np.zeros((2, 2, 2))), npy(np.zeros((0, 3))),
        npy(np.array([1.0, np.nan])), npy(np.array(["a"])), npz(a=VALUES, b=VALUES), npz(a=VALUES)[:80], b"\x89PNG\xff",
    ],
)  # fmt: skip
def test_what_is_no_series_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        SERIES.check(data, READING)


def test_one_channel_and_short_ones() -> None:
    short = shown(npy(np.arange(5)), WHOLE)
    assert short[:, 0].tolist() == [0, 1, 2, 3, *[4] * 28]
    assert short.dtype == np.float32


def test_training_sees_slices_that_are_stretched() -> None:
    """From 0.75 of 32 points, 24, at half of the 26 places: by torch's interpolation between the ends."""
    view = Slice(knobs=KNOBS.model_copy(update={"slice_min": 0.5}))
    part = torch.from_numpy(VALUES[13:37]).T[None]
    expected = F.interpolate(part, 32, mode="linear", align_corners=True)[0].T
    torch.testing.assert_close(torch.from_numpy(shown(npy(VALUES), view, 0.5, 0.5)), expected, rtol=0, atol=1e-5)
    whole = Slice(knobs=KNOBS.model_copy(update={"slice_min": 1.0}))
    np.testing.assert_array_equal(shown(npy(VALUES), whole, 0.5, 0.999), VALUES[17:49])


def test_training_scales_channels_about_their_means_and_adds_noise() -> None:
    draws = np.random.default_rng(1).random((400, 2))
    raw = np.tile(np.float32([3.0, -1.0]), (32, 1))  # a deviation above the mean of one channel, at that of the other
    scaled = Slice(knobs=KNOBS.model_copy(update={"jitter": 0.0, "scaling": 0.1}))
    value = np.stack([SERIES.change(raw, scaled, STATS, own) for own in draws])
    assert (value == value[:, :1]).all(), "one factor a channel"
    assert (value[..., 1] == -1).all()
    factor = (value[:, 0, 0] - 1) / 2
    assert abs(factor.mean() - 1) < 4 * 0.1 / 20
    assert factor.std() == pytest.approx(0.1, rel=0.15)
    noisy = Slice(knobs=KNOBS.model_copy(update={"jitter": 0.5, "scaling": 0.0}))
    noise = np.stack([SERIES.change(raw, noisy, STATS, own) for own in draws]) - raw
    np.testing.assert_allclose(noise.std(axis=(0, 1)), [1.0, 0.25], rtol=0.05)
    np.testing.assert_array_equal(SERIES.change(raw, noisy, STATS, draws[0]) - raw, noise[0])
    assert SERIES.change_draws(noisy) == 2
    assert SERIES.change_draws(WHOLE) == 0


def test_each_channel_is_normalized_by_its_own_moments_each_series_with_the_same_weight() -> None:
    short, long = VALUES[:10], 3 * VALUES + 1
    stats = SERIES.statistics([SERIES.measure(npy(part), READING) for part in (short, long)], READING)
    first, second = ((short**power).mean(0) / 2 + (long**power).mean(0) / 2 for power in (1, 2))
    np.testing.assert_allclose(stats.mean, first, atol=1e-5)
    np.testing.assert_allclose(stats.std, np.sqrt(second - first**2), atol=1e-5)
    raw = torch.tensor([[[3.0, -1.0]] * 32])
    value = SERIES.normalize(SERIES.augment(raw, WHOLE, torch.empty(1, 0)), WHOLE, STATS)
    assert torch.equal(value, torch.tensor([1.0, 0.0])[None, :, None].expand(1, 2, 32))
    with pytest.raises(DataError, match="series of 1 and 2 channels"):
        SERIES.statistics([SERIES.measure(npy(part), READING) for part in (short, short[:, 0])], READING)


def test_a_picture_has_time_to_the_right_and_larger_values_above() -> None:
    values = torch.zeros(1, 2, 4)
    values[0, 1] = torch.tensor([-9.0, -1.5, 1.5, 9.0])
    picture = SERIES.picture(values, STATS)
    assert picture.shape == (1, 64, 4, 3)
    blue, orange = ((picture[0] == color).all(2) for color in ([31, 119, 180], [255, 127, 14]))
    assert np.argwhere(orange.T).tolist() == [[0, 63], [1, 48], [2, 16], [3, 0]]
    assert np.argwhere(blue.T).tolist() == [[time, 32] for time in range(4)]


FREE = [name for name in names() if load(name).modalities is None]


@pytest.mark.parametrize("name", FREE)
def test_objectives_of_any_modality_take_series(name: str) -> None:
    method, supervised, info = load(name), load("supervised"), TrainInfo(8, 3, 4, 2, channels=2, sizes=(32,))
    hyper = method.Hyper()
    views = SERIES.views(method.views(hyper), (32,), KNOBS)
    shape = InputShape(2, (32,))
    with torch.device("meta"):
        trunk = encoder.build(Backbone(**BACKBONE), method.initialize, shape)
        if method.lesson(hyper):
            teacher = encoder.build(Backbone(**BACKBONE), shape=shape)
            info = info._replace(teacher=Frozen(supervised(supervised.Hyper(), {"series": teacher}, info), trunk.patch))
        loss = method(hyper, {"series": trunk}, info)(blank_batch(views, trunk.patch, 8, "meta", channels=2)).loss
        loss.backward()
    assert loss.shape == ()
    assert SERIES.views(Views((Crop(), Crop(of=0))), (32,), KNOBS).specs[1].of == 0


def test_arrays_beside_images_are_no_samples(tmp_path: Path) -> None:
    """A shard of images with their latents stays one of images; one of arrays alone is of series."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(sink, "PNG")
    members = [("0", "png", sink.getvalue(), None), ("0", "npy", npy(np.zeros((4, 8, 8))), None)]
    for name, part in (("both", members), ("alone", [("0", "npy", npy(VALUES), None)])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.tar").write_bytes(write_tar(iter(part), mark=""))
    assert [*shards.index(str(tmp_path / "both")).fields] == ["image"]
    assert shards.index(str(tmp_path / "alone")).fields["series"].channels == 2


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Slow and fast waves of two channels, in three formats, packed."""
    root, draw = tmp_path_factory.mktemp("series"), np.random.default_rng(0)
    for number in range(48):
        phase = draw.uniform(0, 6) + np.arange(60) * (0.2, 0.9)[number % 2]
        values = np.stack([np.sin(phase), 5 + np.cos(phase)], axis=1) + draw.normal(0, 0.1, (60, 2))
        path = root / "in" / ("slow", "fast")[number % 2] / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = number // 2 % 3
        suffix, data = [("npy", npy(values)), ("npz", npz(values=values)), ("csv", b"")][kind]
        path.with_suffix(f".{suffix}").write_bytes(data or "\n".join(f"{a},{b}" for a, b in values).encode())
    return pack(root / "in", root / "out", shard_size=20).manifest


def test_series_are_packed_as_they_are(waves: Manifest) -> None:
    assert (waves.num_samples, waves.classes, [*waves.fields]) == (48, ("fast", "slow"), ["series"])
    assert waves.members == ("cls", "csv", "npy", "npz")
    assert shards.check(waves.root) == []
    assert waves.fields["series"].mean == pytest.approx((0, 5), abs=0.2)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("method", ["mae", pytest.param("simclr", marks=pytest.mark.slow)])
def test_a_whole_run_on_series(method: str, waves: Manifest, tmp_path: Path) -> None:
    spec = {
        "name": "waves",
        "data": {"train": waves.root, "val": waves.root},
        "input": {"series": {"points": 32}},
        "method": method,
        "backbone": BACKBONE,
        "optim": {"lr": 1e-3, "lr_rule": "none"},
        "train": {"duration": {"steps": 4}, "batch": 16, "log_every": 2},
        "evals": {"knn": {"k": 3}, "linear": {"epochs": 2}},
        "resources": {"workers": 1},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    planned = plan(read(tmp_path / "spec.yaml"), tmp_path / "home")
    assert [run.label for run in planned] == ["raw series", "random encoder", method]
    for run in planned:
        perform(run)
        assert 0 <= run.probes["linear"].result()["top1"] <= 100
    assert planned[0].probes["knn"].result()["top1"] > 70, "waves can be told"
    assert [stage.kind for stage in planned[-1].drawings] == ["pictures"] * (method == "mae")
