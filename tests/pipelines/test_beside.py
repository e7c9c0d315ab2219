"""Data that could stand alone, beside samples: its index, its place in time and picture, its tower, and a whole run."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import npy
from outsiders import planned, refused, spec_beside
from videos import coded

from selfsup.errors import SpecError
from selfsup.metrics_log import records
from selfsup.modality import load as load_modality
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.audio import AudioInput, Excerpt
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.spectra.mel import log_mel
from selfsup.pipelines.modalities.video import Clip, VideoInput
from selfsup.pipelines.objective import build
from selfsup.pipelines.stages.evaluate import Load
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Embed
from selfsup.views import Center, Crop, Views

AUDIO, VIDEO = load_modality("audio"), load_modality("video")
SOUND = Excerpt(knobs=AudioInput(rate=8000, frames=38, bins=8), of=0)  # 395 ms
FILM = Clip(knobs=VideoInput(frames=4, rate=10.0), crop=Crop(size=16))  # 400 ms
OBJECTIVE = """
from selfsup.knob import Knobs, knob
from selfsup.method import Method, Out
from selfsup.views import Beside, Crop, Views

class Hyper(Knobs):
    listens: bool = knob(True, "reads series")

class Pair(Method):
    paper, family, Hyper, beside = "0000.00000", "pair", Hyper, ("series", "audio")

    @classmethod
    def views(cls, hyper):
        return Views((Crop(), *([Beside(field="series")] if hyper.listens else [])))

    def __init__(self, hyper, encoders, info):
        super().__init__(hyper, encoders, info)
        self.info = info

    def forward(self, batch):
        vectors = [self.encoders[view.modality].pooled(view.value) for view in batch.views]
        return Out(sum(vector.square().mean() for vector in vectors))
"""


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """32 gray images, each beside a series of two channels whose values are its number, and ten times that."""
    samples = (
        AnnotatedSample(
            f"{number:03d}",
            {
                "jpg": jpeg(np.full((32, 32, 3), 7 * number, np.uint8), quality=95),
                "npy": npy(np.full((40, 2), number) * np.array([1.0, 10.0])),
            },
            number % 2,
        )
        for number in range(32)
    )
    return pack_annotated(samples, tmp_path_factory.mktemp("signals"), classes=["even", "odd"])


def test_what_lies_beside_images_is_indexed_and_measured_apart(signals: Manifest, tmp_path: Path) -> None:
    assert (list(signals.fields), list(signals.beside)) == (["image"], ["series"])
    stats, numbers = signals.reading("series"), np.arange(32)
    np.testing.assert_allclose([stats.mean, stats.std], np.outer([numbers.mean(), numbers.std()], [1, 10]), rtol=1e-5)
    [sample] = SampleReader(signals, "series").read(np.array([5]))
    assert (np.load(io.BytesIO(bytes(sample.data)))[:, 0] == 5).all()
    assert shards.index(signals.root, out=str(tmp_path / "again")).readings == signals.readings
    assert shards.check(signals.root) == []


def test_arrays_that_are_no_series_are_left_out(tmp_path: Path) -> None:
    image, remarks = jpeg(np.zeros((8, 8, 3), np.uint8), quality=95), list[str]()
    samples = [AnnotatedSample(str(n), {"jpg": image, "npy": npy(np.zeros((2, 3, 4)))}) for n in range(2)]
    data = pack_annotated(samples, tmp_path)
    shards.index(str(tmp_path), remark=remarks.append)
    assert not data.beside
    assert [remark for remark in remarks if "series is left out" in remark]
    assert {path.name for path in tmp_path.glob("*.npy")} == {"manifest-samples.npy"}


def test_the_sound_of_a_clip_is_of_the_same_time() -> None:
    """Of a clip from 1.1 to 1.5 s an excerpt of 395 ms begins 2.5 ms later: both have one middle, also longer ones.

    Of a clip at the beginning or the end, that as far as the recording goes.
    """
    clips = np.array([[start, 0, 0, 400, 16, 16, 1, 6000, 32, 48] for start in (1100, 0, 5600)], np.float64)
    extents, draws = np.array([[6000, 4000], [6000, 4000], [5700, 4000]]), np.full((3, 1), 0.9)
    own = AUDIO.follow(SOUND, extents, draws, VIDEO.axes, clips)
    assert own[:, 0].tolist() == [1102.5, 2.5, 5305]
    assert own[:, 2].tolist() == [395] * 3
    assert own[:, 4].tolist() == [0] * 3
    long = Excerpt(knobs=AudioInput(frames=98), of=0)  # 995 ms
    assert AUDIO.follow(long, extents, draws, VIDEO.axes, clips)[:, 0].tolist() == [802.5, 0, 4705]
    whole = np.array([[0, 0, 1000, 8000, 0, 1000, 8000]], np.float64)  # of a sound, the clip in its middle
    [clip] = VIDEO.follow(FILM, np.array([[1000, 32, 48]]), np.zeros((1, VIDEO.place_draws)), AUDIO.axes, whole)
    assert (clip[0], clip[3], clip[6]) == (300, 400, VIDEO.place(FILM, np.ones((1, 3), int), np.zeros((1, 24)))[0, 6])


def test_a_stream_delivers_the_sound_of_each_clip(tmp_path: Path) -> None:
    """A sound that grows louder all along tells the time: the excerpt is as loud as the recording is at its place."""
    soundfile = pytest.importorskip("soundfile")
    sink, rate = io.BytesIO(), 8000
    noise = np.random.default_rng(0).uniform(-1, 1, 6 * rate) * 2.0 ** np.arange(-12, 0, 2 / rate)
    soundfile.write(sink, noise, rate, format="FLAC")
    film = coded([np.full((32, 48, 3), 4 * number, np.uint8) for number in range(60)], options={"g": "5"})
    data = pack_annotated([AnnotatedSample(str(n), {"mp4": film, "flac": sink.getvalue()}) for n in range(4)], tmp_path)
    assert sorted(data.fields) == ["audio", "video"]
    order = SampleOrder(samples=4, batch=4, seed=0, lanes=1, chunk=1, mix=1)
    stream = SampleStream(data, order, Views((FILM, SOUND)), 3)
    for row in stream.rows([0], 0, 3, threads=1, memory=2**24):
        clip, sound = row["box0"], row["box1"]
        assert len(set(clip[:, 0].tolist())) == 4
        np.testing.assert_allclose(sound[:, 0], np.clip(clip[:, 0] + 2.5, 0, 6000 - 395), atol=1e-3)
        frames = row["view0"].mean((2, 3, 4)) / 4  # their numbers, of ten a second
        np.testing.assert_allclose(frames[:, 0], np.floor(clip[:, 0] / 100), atol=0.7)
        loud = row["view1"].mean((1, 2, 3)) / (2 * np.log(2))  # log of power: doublings of the amplitude
        np.testing.assert_allclose(loud - loud[0], (sound[:, 0] - sound[0, 0]) / 500, atol=0.15)


def test_evaluation_hears_what_it_sees(tmp_path: Path) -> None:
    """The middle 400 ms of 6 s, and of 6.5 s of sound the 395 from 2802.5 ms on; of all of it, the middle."""
    soundfile = pytest.importorskip("soundfile")
    sink, rate, noise = io.BytesIO(), 8000, np.random.default_rng(0).uniform(-1, 1, 52_000)
    soundfile.write(sink, noise, rate, format="WAV", subtype="FLOAT")
    film = coded([np.full((32, 48, 3), 4 * number, np.uint8) for number in range(60)], options={"g": "5"})
    data = pack_annotated([AnnotatedSample("0", {"mp4": film, "wav": sink.getvalue()})], tmp_path)
    clip, sound = Clip(knobs=FILM.knobs, crop=Center(size=16)), Excerpt(knobs=SOUND.knobs, is_random=False)
    for embed, start in ((Embed(), 2802.5), (Embed(clips=2), 2802.5)):
        made = Load(data, data, VIDEO.tested(clip, embed), 0, sound)({"id": np.array([0])})
        heard = log_mel(noise[math.ceil(start * rate / 1000) :].astype(np.float32), rate, 8)[:38]
        np.testing.assert_array_equal(made["beside"][0, ..., 0], heard)
        assert made["sample"].shape == (1, 4 * embed.clips, 16, 16, 3)
    frames = Load(data, data, clip)({"id": np.array([0])})["sample"].mean((0, 2, 3, 4)) / 4
    np.testing.assert_allclose(frames, [28, 29, 30, 31], atol=0.7)


def test_a_tower_is_as_the_backbone_or_as_the_spec_says(signals: Manifest, tmp_path: Path) -> None:
    def objective(**sections: object) -> torch.nn.Module:
        run = planned(spec_beside(tmp_path / "in" / "pair.py", OBJECTIVE, signals.root, method="./pair.py", **sections))
        return build(run.run, run.info, torch.device("cpu"))

    same = objective(input={"series": {"points": 32}})
    assert list(same.encoders) == ["image", "series"]
    assert (same.encoders["series"].dim, same.encoders["series"].patch) == (32, 8)
    assert same.info.beside["series"].sizes == (32,)
    assert same.info.beside["series"].channels == 2
    tower = {"name": "vit_tiny_patch16_224", "patch_size": 4, "width": 48, "depth": 2, "heads": 3}
    other = objective(input={"series": {"points": 32}}, towers={"series": tower})
    assert (other.encoders["series"].dim, other.encoders["series"].patch) == (48, 4)
    assert list(objective(hyper={"listens": False}).encoders) == ["image"]


def test_what_a_spec_cannot_ask_beside_images(signals: Manifest, tmp_path: Path) -> None:
    spec = spec_beside(tmp_path / "in" / "pair.py", OBJECTIVE, signals.root, method="./pair.py")
    assert "has no encoder of video by itself" in refused(spec, "towers.video.name=vit_tiny_patch16_224")
    assert "towers.series.name" in refused(spec, "towers.series.name=vit_tiny")
    assert "do not divide" in refused(spec, "towers.series.patch_size=5", "input.series.points=32")
    with pytest.raises(SpecError, match=r"samples of 33 points do not divide .* of 8"):
        planned(
            spec_beside(
                spec.parent / "pair.py", OBJECTIVE, signals.root, method="./pair.py", input={"series": {"points": 33}}
            )
        )
    audio = OBJECTIVE.replace('field="series"', 'field="audio"')
    lacking = spec_beside(tmp_path / "audio" / "pair.py", audio, signals.root, method="./pair.py")
    with pytest.raises(SpecError, match=r"no sample of .* is known to have some; give each sample a .wav"):
        planned(lacking)


@pytest.mark.usefixtures("cluster")
def test_imagebind_binds_depth_and_series_to_images(tmp_path: Path) -> None:
    """Which are compared with each other, too, of which it sees no pair in training."""
    draw = np.random.default_rng(0)
    members = (
        {
            "jpg": jpeg(draw.integers(0, 255, (32, 32, 3), np.uint8), quality=95),
            "depth.png": png(draw.integers(1, 9999, (32, 32), np.uint16)),
            "npy": npy(draw.normal(size=(40, 2))),
        }
        for _ in range(16)
    )
    samples = (AnnotatedSample(f"{number:03d}", own, number % 2) for number, own in enumerate(members))
    data = pack_annotated(samples, tmp_path / "data", classes=["even", "odd"])
    evals = {"emergent": {"use": "cross_retrieval", "between": ["depth", "series"]}}
    evals |= {name: {"use": "knn", "k": 3, "tower": name} for name in ("depth", "series")}
    sections = {"method": "imagebind", "input": {"depth": {}, "series": {"points": 32}}, "evals": evals}
    sections |= {"hyper": {"bound": ["depth", "series"], "dim": 16}}
    sections |= {"train": {"duration": {"steps": 2}, "batch": 8, "log_every": 1}}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data.root, **sections))
    assert {name: shape.channels for name, shape in run.info.beside.items()} == {"depth": 1, "series": 2}
    perform(run)
    [*_, last] = records(run.pretrain.spool)
    assert {"depth_loss", "series_loss", "depth_paired", "series_paired"} <= last.values.keys()
    assert all(0 <= value <= 100 for probe in run.probes.values() for value in probe.result().values())


@pytest.mark.usefixtures("cluster")
def test_a_whole_run_on_images_beside_series(signals: Manifest, tmp_path: Path) -> None:
    sections = {"method": "./pair.py", "input": {"series": {"points": 32}}, "evals": {"knn": {"k": 3}}}
    run = planned(spec_beside(tmp_path / "in" / "pair.py", OBJECTIVE, signals.root, **sections))
    perform(run)
    assert 0 <= run.probes["knn"].result()["top1"] <= 100
