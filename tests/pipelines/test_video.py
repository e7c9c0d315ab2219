"""Video: frames by their time stamps, against numbers painted on them; crops against torchvision's; whole runs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import kstest
from tiny import BACKBONE
from videos import coded, number_of, numbered

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.errors import DataError, SpecError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo, load, names
from selfsup.modality import DecodeError
from selfsup.parts.patch import patchify, unpatchify
from selfsup.pipelines import cost
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.pixels.frames import every, frames, header
from selfsup.pipelines.modalities.pixels.randaugment import rand_augment
from selfsup.pipelines.modalities.video import Clip, Video, VideoInput, VideoReading, VideoStats
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.encoder_source import joined
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Backbone, Embed, InputShape
from selfsup.spec import read
from selfsup.views import CROP_DRAWS, Center, Crop, Views

av = pytest.importorskip("av", reason="pip install 'selfsup[video]'")
VIDEO, READING = Video(), VideoReading()
STATS = VideoStats(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SHORT = VideoInput(frames=4, rate=10.0)
SIX_SECONDS = [numbered(number) for number in range(60)]  # at 10 a second
SHADE = np.full((16, 16, 3), 10, np.uint8)
MIDDLE = Clip(knobs=SHORT, crop=Center(size=16, rounded=True))


def numbers(data: bytes, *times: float) -> list[int]:
    return [number_of(frame) for frame in frames(data, times)]


def shown(data: bytes, view: Clip, *draws: float) -> np.ndarray:
    """-> (T, size, size, 3), as the stream loads it"""
    taken = np.zeros((1, VIDEO.place_draws))
    taken[0, VIDEO.place_draws - len(draws) :] = draws
    return VIDEO.load(data, VIDEO.place(view, np.array([VIDEO.extent(data, READING)]), taken), [view], READING)[0]


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("mp4", "libx264", {"g": "12", "bf": "3"}),
        ("mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=strict"}),
        ("matroska", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
        ("webm", "libvpx-vp9", {"g": "20"}),
        ("avi", "mpeg4", {"g": "12"}),
        ("avi", "mpeg4", {"g": "12", "bf": "2", "b": "4M"}),
        ("avi", "libx264", {"g": "12", "bf": "0"}),
        ("matroska", "ffv1", {}),
    ],
)
def test_any_run_of_frames_is_that_of_its_time_stamps(kind: str, codec: str, options: dict[str, str]) -> None:
    """Frames between key frames, among B-frames and after seeks, in every container."""
    data = coded(SIX_SECONDS, kind=kind, codec=codec, options=options)
    assert header(data) == (6000, 32, 48)
    for start in range(0, 57, 4):
        times = [100 * (start + number) for number in range(4)]
        assert numbers(data, *times) == [(start + number) % 15 for number in range(4)], start
    assert numbers(data, 0, 149, 5500) == [0, 1, 10], "far apart"
    assert [number_of(frame) for frame in every(data)] == [number % 15 for number in range(60)]


def test_what_has_no_times_of_its_frames_is_refused() -> None:
    """FFmpeg gives H.264 in AVI the times at which frames are stored, and raw H.264 none."""
    reordered = coded(SIX_SECONDS, kind="avi", options={"g": "12", "bf": "2"})
    for opening in (header, lambda data: frames(data, [0.0]), lambda data: list(every(data))):
        with pytest.raises(DecodeError, match=r"H\.264 in AVI, whose frames .* convert it to MP4"):
            opening(reordered)
    with pytest.raises(DecodeError, match="a video without time stamps"):
        list(every(coded(SIX_SECONDS, kind="h264")))


def test_no_more_is_decoded_than_a_clip_needs() -> None:
    """All is wiped out but ten frames from a key frame on: none of the rest is missed, unless it is asked for."""
    options = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=0"}
    data = bytearray(coded(SIX_SECONDS, options=options))
    with av.open(io.BytesIO(bytes(data))) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    assert len(places) == 60
    for start, size in places[:20] + places[30:]:
        data[start : start + size] = bytes(size)
    assert numbers(bytes(data), 2000, 2300, 2400, 2900) == [5, 8, 9, 14], "20, 23, 24 and 29, modulo 15"
    for time in (1900, 3000):
        with pytest.raises(DecodeError):
            frames(bytes(data), [time])


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_frame_of_a_variable_rate_is_shown_until_the_next_one(kind: str) -> None:
    stamps = [0, 40, 60, 200, 210, 500, 900, 910, 1500]
    data = coded(SIX_SECONDS[:9], stamps, kind=kind, options={"bf": "2"})
    times = [0, 39, 40, 100, 199, 205, 499, 500, 905, 1499, 1500, 3000]
    expected = [max(number for number, stamp in enumerate(stamps) if stamp <= time) for time in times]
    assert numbers(data, *times) == expected


def test_thirds_of_a_second_are_in_time_though_matroska_rounds_them() -> None:
    data = coded(SIX_SECONDS, [round(number * 1000 / 30) for number in range(60)], kind="matroska")
    assert numbers(data, *(number * 1000 / 30 for number in range(60))) == [number % 15 for number in range(60)]


def test_what_an_edit_list_hides_is_not_shown() -> None:
    """The track's edit begins at 1.5 s of its media, between key frames: made by hand, 15 frames of 10 a second in."""
    data = bytearray(coded(SIX_SECONDS[:30], options={"g": "10", "bf": "0"}))
    place = data.index(b"elst") + 4  # version, one entry: duration in milliseconds, start in the media's units
    unit = int.from_bytes(data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20], "big")
    assert int.from_bytes(data[place + 4 : place + 8], "big") == 1
    data[place + 8 : place + 16] = (1500).to_bytes(4, "big") + (3 * unit // 2).to_bytes(4, "big")
    assert numbers(bytes(data), 0, 100, 700, 1400) == [0, 1, 7, 14], "of 15 to 29, modulo 15"
    assert header(bytes(data)).milliseconds == pytest.approx(1500, abs=100)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_video_is_seen_upright(turn: int) -> None:
    data, plain = coded(SIX_SECONDS[:8], turn=turn), coded(SIX_SECONDS[:8])
    upright = np.rot90(frames(plain, [300])[0], turn // 90)  # counterclockwise
    np.testing.assert_array_equal(frames(data, [300])[0], upright)
    assert header(data)[1:] == upright.shape[:2]


def test_a_damaged_video_is_an_error() -> None:
    still = coded(SIX_SECONDS, kind="matroska", codec="ffv1")
    for data in (b"", b"\x00\x00\x00\x18ftypmp42" + bytes(99), still[: len(still) // 2], coded(SIX_SECONDS)[:2000]):
        with pytest.raises(DecodeError):
            VIDEO.check(data, READING)
    with pytest.raises(DecodeError, match="ends at"):
        frames(still[: len(still) // 2], [4000])
    assert VIDEO.fill([b"none"], np.zeros((1, 1, 7)), [MIDDLE], READING, [np.zeros((1, 4, 16, 16, 3), np.uint8)]) == [0]


def test_evaluation_sees_the_middle_and_training_any_part_that_a_number_chooses() -> None:
    data = coded(SIX_SECONDS, kind="matroska", codec="ffv1")
    anywhere = Clip(knobs=SHORT, crop=Crop(size=16, scale=(1.0, 1.0), ratio=(1.5, 1.5), flip=0.0))
    extents = np.array([[6000, 32, 48]])
    [box] = VIDEO.place(MIDDLE, extents, np.empty((1, 0)))
    assert box.tolist() == [2800.0, 0.0, 8.0, 400.0, 32.0, 32.0, 0.0], "half of 6000 - 400; a square of 32 x 48"
    lower = slice(12, None)
    assert [number_of(frame[lower]) for frame in shown(data, MIDDLE)] == [13, 14, 0, 1], "28 to 31, modulo 15"
    assert [number_of(frame[lower]) for frame in shown(data, anywhere, 0.5)] == [13, 14, 0, 1]
    assert [number_of(frame[lower]) for frame in shown(data, anywhere, 0.999)] == [10, 11, 12, 13], "from 5594 ms on"
    short = coded(SIX_SECONDS[:2], kind="matroska", codec="ffv1")
    assert [number_of(frame[lower]) for frame in shown(short, anywhere, 0.9)] == [0, 1, 1, 1]


def test_the_crop_of_all_frames_is_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as F

    draw = np.random.default_rng(0)
    noise = [draw.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(4)]
    data = coded(noise, kind="matroska", codec="ffv1", pixels="bgr0")
    np.testing.assert_array_equal(frames(data, [0, 100, 200, 300]), noise)
    view = Clip(knobs=SHORT, crop=Crop(size=16, flip=1.0))
    draws = np.random.default_rng(1).random((1, VIDEO.place_draws))
    [box] = VIDEO.place(view, np.array([[400, 40, 60]]), draws)
    top, left, height, width = (int(box[axis]) for axis in (1, 2, 4, 5))
    assert box[6] == 1
    assert (height, width) not in {(40, 60), (16, 16)}
    [value] = VIDEO.load(data, box[None], [view], READING)
    for frame, plain in zip(value, noise, strict=True):
        image = torch.from_numpy(plain).permute(2, 0, 1)
        cut = F.resized_crop(image, top, left, height, width, [16, 16], F.InterpolationMode.BICUBIC, antialias=True)
        np.testing.assert_array_equal(frame, F.hflip(cut).permute(1, 2, 0))


def test_every_frame_is_changed_alike() -> None:
    view = Clip(knobs=SHORT, crop=Crop(size=16, jitter=1.0, brightness=0.4, saturation=0.4, hue=0.1, blur=1.0))
    still = torch.randint(0, 256, (2, 1, 16, 16, 3), dtype=torch.uint8).expand(-1, 4, -1, -1, -1)
    value = VIDEO.augment(still, view, torch.rand(2, VIDEO.augment_draws(view)))
    assert value.shape == (2, 3, 4, 16, 16)
    assert (value == value[:, :, :1]).all()
    assert not torch.allclose(value[:, :, 0], still[:, 0].permute(0, 3, 1, 2) / 255, atol=0.02)
    scaled = VIDEO.normalize(value.clone(), view, STATS)
    expected = (value[:, 1] - 0.5) / 0.25
    torch.testing.assert_close(scaled[:, 1], expected)


def test_views_are_an_objectives_with_flips_as_the_input_says() -> None:
    asked = Views((Crop(scale=(0.3, 1.0)), Crop(of=0), Center(share=0.9)))
    plain, unflipped = (VIDEO.views(asked, (4, 16, 16), VideoInput(frames=4, flip=flip)) for flip in (True, False))
    assert [view.lengths for view in plain.specs] == [(4, 16, 16)] * 3
    assert [view.of for view in plain.specs] == [None, 0, None]
    assert [view.crop.flip for view in plain.specs] == [0.5, 0.5, 0.0]
    assert [view.crop.flip for view in unflipped.specs] == [0.0] * 3
    assert plain.specs[0].crop.scale == (0.3, 1.0)


def test_rand_augment_changes_every_frame_as_it_does_an_image() -> None:
    """That of one image, which test_mixing compares with timm's, for each frame with the same numbers."""
    [view] = VIDEO.views(Views((Crop(rand_augment=(9, 0.5)),)), (4, 16, 16), SHORT).specs
    raw = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    draws = np.random.default_rng(1).random((5, VIDEO.change_draws(view)))
    for own in draws:
        expected = [rand_augment(frame, own, (9, 0.5), STATS.mean) for frame in raw]
        np.testing.assert_array_equal(VIDEO.change(raw, view, STATS, own), expected)
    plain = VIDEO.views(Views((Crop(),)), (4, 16, 16), SHORT).specs[0]
    assert VIDEO.change_draws(plain) == 0
    assert view.geometry != plain.geometry


def test_a_picture_has_four_frames_side_by_side() -> None:
    values = torch.zeros(1, 3, 16, 8, 8)
    values[0, :, [0, 5, 10, 15]] = torch.tensor([-1.0, 0.0, 1.0, 2.0])[:, None, None]
    picture = VIDEO.picture(values, STATS)
    assert picture.shape == (1, 8, 32, 3)
    assert picture[0, 0, ::8, 0].tolist() == [round(255 * level) for level in (0.2, 0.4, 0.6, 0.8)]


def test_an_encoder_embeds_tubelets_as_a_convolution_does() -> None:
    trunk = encoder.build(Backbone(**BACKBONE), shape=InputShape(3, (4, 32, 32), (2,)))
    assert (trunk.grid, trunk.patch, trunk.patch_values) == ((2, 4, 4), (2, 8, 8), 2 * 8 * 8 * 3)
    clip = torch.randn(2, 3, 4, 32, 32)
    tokens = patchify(clip, trunk.patch)
    torch.testing.assert_close(unpatchify(tokens.value, grid=tokens.grid, patch=trunk.patch), clip)
    torch.testing.assert_close(trunk._embed(tokens.value), trunk.trunk.patch_embed.proj(clip).flatten(2).mT)
    assert trunk.spatial(tokens).shape == (2, 32, 2, 4, 4)
    keep = torch.tensor([[3, 30, 17], [0, 1, 2]])
    assert trunk(tokens, keep).shape == (2, 4, 32)
    for name, match in (("resnet18", "sees images"), ("beit_base_patch16_224", "row and column")):
        with pytest.raises(SpecError, match=match):
            encoder.build(Backbone(name=name, image_size=32), shape=InputShape(3, (4, 32, 32), (2,)))


def test_several_clips_and_crops_cover_a_video_from_end_to_end() -> None:
    """Of 60 frames, 10 a second: clips of four frames from 0, 2.8 and 5.6 s, each cut at the left, middle and right."""
    frames = [np.concatenate([shade, shade + 50, shade + 100], axis=1) for shade in (SHADE + 2 * n for n in range(60))]
    data, view = coded(frames, kind="matroska", codec="ffv1", pixels="bgr0"), Clip(knobs=SHORT, crop=Center(size=16))
    several = VIDEO.tested(view, Embed(clips=3, crops=3))
    assert (several.num_parts, several.lengths) == (9, (36, 16, 16))
    parts = shown(data, several).reshape(3, 3, 4, 16, 16, 3)
    for clip, start in enumerate((0, 28, 56)):
        for crop, more in enumerate((0, 50, 100)):
            means = parts[clip, crop].mean((1, 2, 3))
            np.testing.assert_allclose(means, 10 + more + 2 * np.arange(start, start + 4), atol=1)
    assert VIDEO.tested(view, Embed()) == view
    assert shown(data, VIDEO.tested(view, Embed(clips=2)))[[0, 4]].mean((1, 2, 3)).round().tolist() == [60, 172]


def test_features_of_several_parts_are_averaged_and_their_tokens_kept() -> None:
    pooled, tokens = torch.randn(6, 5), torch.randn(6, 2, 5)
    for features in (pooled, tokens):  # of which there are two where they are a sample's and its caption's
        expected = torch.stack([features[:3].mean(0), features[3:].mean(0)])
        torch.testing.assert_close(joined(features, 3, tokens=False), expected)
        assert joined(features, 1, tokens=False).equal(features)
    assert joined(tokens, 3, tokens=True).equal(torch.stack([tokens[:3].flatten(0, 1), tokens[3:].flatten(0, 1)]))
    assert joined(tokens, 1, tokens=True).equal(tokens)


def test_two_clips_of_a_video_are_as_far_apart_as_those_of_cvrl() -> None:
    """Its code draws the time k between clips, of at most T, by 2 k / T - k^2 / T^2, and the first's start evenly."""
    draws, most = np.random.default_rng(0), 10_000 - 400
    view = VIDEO.views(load("simclr").views(load("simclr").Hyper()), (4, 32, 32), SHORT).specs[0]
    extents = np.tile([10_000, 32, 32], (4000, 1))
    one, other = (VIDEO.place(view, extents, draws.random((4000, VIDEO.place_draws)))[:, 0] for _ in range(2))
    apart, first = np.abs(one - other), np.minimum(one, other)
    assert kstest(apart / most, lambda k: 2 * k - k**2).pvalue > 0.01
    assert kstest(first / (most - apart), "uniform").pvalue > 0.01


FREE = [name for name in names() if load(name).modalities is None]


@pytest.mark.parametrize("name", FREE)
def test_objectives_of_any_modality_take_clips(name: str) -> None:
    method, supervised, info = load(name), load("supervised"), TrainInfo(8, 3, 4, 2)
    hyper, shape = method.Hyper(), InputShape(3, (4, 32, 32), (2,))
    views = VIDEO.views(method.views(hyper), (4, 32, 32), SHORT)
    with torch.device("meta"):
        trunk = encoder.build(Backbone(**BACKBONE), method.initialize, shape)
        if method.lesson(hyper):
            teacher = encoder.build(Backbone(**BACKBONE), shape=shape)
            info = info._replace(teacher=Frozen(supervised(supervised.Hyper(), {"video": teacher}, info), trunk.patch))
        batch = blank_batch(views, trunk.patch, 8, "meta")
        loss = method(hyper, {"video": trunk}, info)(batch).loss
        loss.backward()
    assert loss.shape == ()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A bar that goes to the left or to the right over noise, 4 frames of 10 a second, in two formats, packed."""
    root, draw = tmp_path_factory.mktemp("video"), np.random.default_rng(0)
    for number in range(48):
        clip = draw.integers(0, 40, (4, 32, 32, 3), np.uint8)
        start, way = draw.integers(0, 32), 1 if number % 2 else -1
        for time, frame in enumerate(clip):
            frame[:, (start + 6 * way * time + np.arange(6)) % 32] = 220
        suffix, kind, codec = [("mp4", "mp4", "libx264"), ("mkv", "matroska", "ffv1")][number // 2 % 2]
        path = root / "in" / ("left", "right")[number % 2] / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(coded(list(clip), kind=kind, codec=codec))
    return pack(root / "in", root / "out", shard_size=20).manifest


def test_videos_are_packed_as_they_are_and_indexed_again(videos: Manifest) -> None:
    assert (videos.num_samples, videos.classes) == (48, ("left", "right"))
    assert videos.members == ("cls", "mkv", "mp4")
    assert shards.index(videos.root).digest == videos.digest
    assert shards.check(videos.root) == []
    with pytest.raises(DataError, match="video is packed as it is, without resize"):
        pack(Path(videos.root).parent / "in", Path(videos.root).parent / "other", resize=8)


def test_statistics_are_of_frames_each_video_with_the_same_weight() -> None:
    draw = np.random.default_rng(0)
    clips = [draw.integers(low, 256, (length, 16, 16, 3), np.uint8) for low, length in ((0, 1), (128, 9))]
    files = [coded(list(clip), kind="matroska", codec="ffv1", pixels="bgr0") for clip in clips]
    stats = VIDEO.statistics([VIDEO.measure(data, READING) for data in files], READING)
    measured = [clip[::8] / 255 for clip in clips]  # one frame of every eight
    mean = np.mean([clip.mean((0, 1, 2)) for clip in measured], axis=0)
    std = np.sqrt(np.mean([(clip**2).mean((0, 1, 2)) for clip in measured], axis=0) - mean**2)
    np.testing.assert_allclose([stats.mean, stats.std], [mean, std], atol=1e-5)


EVALS = {"knn": {"k": 3}, "linear": {"epochs": 2}, "attentive": {"epochs": 1}}


def spec(folder: Path, manifest: Manifest, **sections: object) -> Path:
    told = {
        "name": "bars",
        "data": {"train": manifest.root, "val": manifest.root},
        "input": {"video": {"frames": 4, "rate": 10.0, "flip": False}},
        "backbone": BACKBONE,
        "optim": {"lr": 1e-3, "lr_rule": "none"},
        "train": {"duration": {"steps": 4}, "batch": 16, "log_every": 2},
        "evals": EVALS,
        "embed": {"clips": 2, "crops": 3},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(told | sections))
    return path


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("method", ["mae", pytest.param("simclr", marks=pytest.mark.slow)])
def test_a_whole_run_on_videos(method: str, videos: Manifest, tmp_path: Path) -> None:
    """Fine-tuning is scored, too, where minutes are given."""
    longer = {"finetune": {"epochs": 1, "batch": 16, "warmup": 0}} if method == "simclr" else {}
    planned = plan(read(spec(tmp_path, videos, method=method, evals=EVALS | longer)), tmp_path / "home")
    assert [run.label for run in planned] == ["raw clips", "random encoder", method]
    text = cost.describe([planned])
    assert "4 frames x 32 rows x 32 columns" in text
    assert "image" not in text.replace("image_size", "")
    for run in planned:
        perform(run)
        assert 0 <= run.probes["linear"].result()["top1"] <= 100
    assert all(0 <= planned[-1].probes[name].result()["top1"] <= 100 for name in longer)
    assert [stage.kind for stage in planned[-1].drawings] == ["pictures"] * (method == "mae")


def test_a_trained_encoder_is_given_clips() -> None:
    clips = torch.randint(0, 256, (1, 3, 4, 20, 32), dtype=torch.uint8)
    view = Clip(knobs=SHORT, crop=Center(size=20, rounded=True))
    expected = clips[:, :, :, :, 6:26].permute(0, 2, 3, 4, 1) / 255
    torch.testing.assert_close(VIDEO.fit(clips, view, READING), expected)
    with pytest.raises(SpecError, match=r"expected clips of 4 frames, \('B', 3, 4, 'H', 'W'\), not \(1, 3, 20, 32\)"):
        VIDEO.fit(clips[:, :, 0], view, READING)
    assert VIDEO.place_draws == CROP_DRAWS + 1
