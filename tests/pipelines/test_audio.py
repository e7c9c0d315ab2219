"""Audio: spectrograms against transformers' AST and by hand; excerpts, masks, packing, and whole runs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import BACKBONE

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.errors import DataError, SpecError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo, load, names
from selfsup.modality import DecodeError
from selfsup.pipelines import cost
from selfsup.pipelines.data import measured, shards
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.audio import Audio, AudioInput, AudioReading, AudioStats, Excerpt, _opened, _read
from selfsup.pipelines.modalities.spectra.mel import Waveform, log_mel
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Backbone, Embed, InputShape
from selfsup.spec import read
from selfsup.views import Crop, Views

soundfile = pytest.importorskip("soundfile", reason="pip install 'selfsup[audio]'")
soxr = pytest.importorskip("soxr", reason="pip install 'selfsup[audio]'")
RATE, READING = 16000, AudioReading()
AUDIO, STATS = Audio(), AudioStats(mean=-4.2677393, std=4.5689974)  # of AudioSet, by Audio-MAE's authors
SHORT = AudioInput(frames=32, bins=16)


def noise(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).astype(np.float32)


def tone(hertz: float, rate: int = RATE, seconds: float = 1.0) -> Waveform:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def coded(
    waveform: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = "FLOAT", **options: object
) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, waveform, rate, format=kind, subtype=subtype, **options)
    return sink.getvalue()


def normalized(raw: torch.Tensor, view: Excerpt, draws: torch.Tensor, stats: AudioStats) -> torch.Tensor:
    return AUDIO.normalize(AUDIO.augment(raw, view, draws), view, stats)


def heard(waveform: Waveform, start: int = 0, frames: int = 32) -> np.ndarray:
    """Return the spectrogram of a part alone. start: ms; of the whole, last bits may differ by the number of frames."""
    return log_mel(waveform[16 * start :][: 16 * (10 * frames + 15)], RATE, 16)


def shown(data: bytes, view: Excerpt, draw: float = 0.0) -> np.ndarray:
    """-> (frames, bins), as the stream loads it"""
    box = AUDIO.place(view, np.array([AUDIO.extent(data, READING)]), np.array([[draw]]))
    return AUDIO.load(data, box, [view], READING)[0][..., 0]


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_spectrograms_and_their_normalization_are_those_of_ast() -> None:
    """3 s, followed by zeros; AST (arXiv 2104.01778) is where Audio-MAE takes both from."""
    from transformers import ASTFeatureExtractor

    waveform, view = noise(3.0), Excerpt(knobs=AudioInput(), is_random=False)
    raw = torch.from_numpy(shown(coded(waveform), view))[None, ..., None]
    value = normalized(raw, view, torch.empty(1, 0), STATS)
    expected = ASTFeatureExtractor(mean=STATS.mean, std=STATS.std)(waveform, sampling_rate=RATE)["input_values"]
    assert value.shape == (1, 1, 1024, 128)
    np.testing.assert_allclose(value[:, 0], expected, atol=2e-4)  # in single precision, where a frame is nearly silent
    assert (raw[:, 298:] == 0).all(), "1 + (48000 - 400) // 160 windows"
    of_imagebind = ASTFeatureExtractor(mean=-4.268, std=9.138 / 2)(waveform, sampling_rate=RATE)["input_values"]
    np.testing.assert_allclose(value[:, 0], of_imagebind, atol=5e-4)


def test_a_bin_by_hand_from_a_sum_over_sines() -> None:
    """64 bins to 4000 Hz: bin 20 of one frame, by the definition of the Fourier transform, in 64 bits."""
    frame = noise().astype(np.float64)[:200]
    centered = frame - frame.mean()
    emphasized = centered - 0.97 * np.concatenate([centered[:1], centered[:-1]])
    windowed = emphasized * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 199))
    low, high = (1127 * np.log(1 + hertz / 700) for hertz in (20, 4000))
    width, energy = (high - low) / 65, 0.0
    for number in range(128):
        mel = 1127 * np.log(1 + number * 8000 / 256 / 700)
        weight = max(0.0, 1 - abs(mel - (low + 21 * width)) / width)
        energy += weight * abs((windowed * np.exp(-2j * np.pi * number * np.arange(200) / 256)).sum()) ** 2
    assert log_mel(noise(), 8000, 64)[0, 20] == pytest.approx(np.log(energy), abs=1e-4)


def test_an_offset_changes_nothing_and_twice_the_amplitude_adds_log_four() -> None:
    waveform = noise()
    plain = log_mel(waveform, RATE, 64)
    np.testing.assert_allclose(log_mel(waveform + np.float32(0.25), RATE, 64), plain, atol=1e-3)
    np.testing.assert_allclose(log_mel(2 * waveform, RATE, 64), plain + np.log(4), atol=1e-3)


def test_recordings_of_any_rate_and_any_number_of_channels_are_one_spectrogram() -> None:
    view = Excerpt(knobs=AudioInput(frames=64, bins=64), is_random=False)
    expected = shown(coded(tone(1000)), view)
    loud = expected.argmax(axis=1)
    for rate in (8000, 22050, 44100, 48000):
        value = shown(coded(tone(1000, rate), rate), view)
        assert (value.argmax(axis=1) == loud).all()
        np.testing.assert_allclose(value.max(axis=1), expected.max(axis=1), atol=0.01)
    sides = np.stack([tone(1000) + noise(), tone(1000) - noise()], axis=1)
    np.testing.assert_allclose(shown(coded(sides), view), expected, atol=0.5)
    above = shown(coded(tone(10000, 44100), 44100), view)[8:56]
    assert above.max() < -15.5, "what is above half the rate is gone"


def test_training_sees_a_part_that_a_number_chooses_and_evaluation_the_beginning() -> None:
    data = coded(noise())  # of 98 frames
    own = SHORT.model_copy(update={"roll": False})
    random = Excerpt(knobs=own)
    np.testing.assert_array_equal(shown(data, Excerpt(knobs=own, is_random=False), 0.9), heard(noise()))
    np.testing.assert_array_equal(shown(data, random, 0.0), heard(noise()))
    later = AUDIO.place(random, np.array([[1000, 8000]]), np.array([[0.5]]))
    assert later.tolist() == [[333.0, 20.0, 335.0, 7980.0, 0.0]], "half of 1000 - 335 + 1 ms; hertz beside it"
    np.testing.assert_array_equal(shown(data, random, 0.5), heard(noise(), 333))


def test_several_clips_cover_a_recording_from_end_to_end() -> None:
    """Of 1000 ms, three of 335: from 0, half of 665 and 665; of a shorter recording each is the whole."""
    whole = Excerpt(knobs=SHORT, is_random=False)
    view = AUDIO.tested(whole, Embed(clips=3))
    assert (view.num_parts, view.lengths) == (3, (96, 16))
    own = [heard(noise(), start) for start in (0, 332, 665)]
    np.testing.assert_array_equal(shown(coded(noise()), view), np.concatenate(own))
    short = shown(coded(noise(0.1)), view).reshape(3, 32, 16)
    np.testing.assert_array_equal(short, np.stack([shown(coded(noise(0.1)), whole)] * 3))
    assert AUDIO.tested(whole, Embed()) == whole


def test_a_rolled_recording_goes_on_at_its_beginning() -> None:
    data, rolled = coded(noise()), np.roll(noise(), -900 * 16)
    np.testing.assert_array_equal(shown(data, Excerpt(knobs=SHORT), 0.9), heard(rolled))
    long = Excerpt(knobs=SHORT.model_copy(update={"frames": 128}))
    value = shown(data, long, 0.9)
    np.testing.assert_array_equal(value[:98], log_mel(rolled, RATE, 16))
    assert (value[98:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"),
    [("FLAC", None, 22050), ("OGG", "VORBIS", RATE), ("OGG", "OPUS", 48000), ("MP3", None, 44100)],
)
def test_compressed_recordings_are_read_from_any_place(kind: str, subtype: str | None, rate: int) -> None:
    waveform, view = tone(440, rate) + noise(1.0, rate), Excerpt(knobs=SHORT)
    plain, data = coded(waveform, rate), coded(waveform, rate, kind, subtype)
    AUDIO.check(data, READING)
    for draw in (0.0, 0.3, 0.95):
        assert np.abs(shown(data, view, draw) - shown(plain, view, draw)).mean() < 0.5  # lossy


@pytest.mark.parametrize(
    ("kind", "subtype", "rate", "options", "apart"),
    [
        ("FLAC", None, 44100, {}, 0),
        ("OGG", "VORBIS", 48000, {}, 0),
        ("OGG", "OPUS", 48000, {}, 0),
        ("OGG", "OPUS", 16000, {"compression_level": 0.99}, 0.01),  # 10 kbit/s
        ("MP3", None, 44100, {}, 1e-6),
        ("MP3", None, 48000, {"bitrate_mode": "VARIABLE"}, 1e-6),
        ("MP3", None, 24000, {"bitrate_mode": "CONSTANT", "compression_level": 0.99}, 1e-6),  # 8 kbit/s
    ],
)
def test_a_part_of_a_recording_is_that_of_the_whole(
    kind: str, subtype: str | None, rate: int, options: dict[str, object], apart: float
) -> None:
    """Whatever was read before: of MP3 to rounding, of Opus for speech, which predicts from what came before, nearly.

    libsndfile alone begins one of five parts of Vorbis, here, with up to a thousand samples that are mixed with others,
    and parts of MP3 whose frames need the bytes of earlier ones with as much noise.
    """
    waveform, length = tone(440, rate, 8.0) + noise(8.0, rate) / 10, rate // 100
    data = coded(waveform, rate, kind, subtype, **options)
    whole, draw = soundfile.read(io.BytesIO(data), dtype="float32")[0], np.random.default_rng(0)
    for _ in range(2):
        with _opened(data) as file:
            for first in draw.integers(0, len(whole) - length, 30).tolist():
                np.testing.assert_allclose(_read(file, first, length), whole[first:][:length], rtol=0, atol=apart)


def test_a_damaged_recording_is_an_error() -> None:
    flac = coded(noise(), kind="FLAC", subtype=None)
    for data in (
        b"",
        b"RIFF" + bytes(99),
        flac[: len(flac) // 2],
        coded(noise(0.02)),
        coded(noise() * np.float32("nan")),
    ):
        with pytest.raises(DecodeError):
            AUDIO.check(data, READING)


def test_recordings_are_loaded_many_at_once_and_damaged_ones_are_named() -> None:
    view, data = Excerpt(knobs=SHORT), [coded(noise(seed=1)), b"none", coded(noise(seed=2))]
    shape, kind = AUDIO.raw(view, READING)
    box, out = (
        AUDIO.place(view, np.array([AUDIO.extent(data[0], READING)]), np.zeros((1, 1))),
        np.zeros((3, *shape), kind),
    )
    assert AUDIO.fill(data, np.stack([box] * 3), [view], READING, [out]) == [1]
    for place in (0, 2):
        np.testing.assert_array_equal(out[place, ..., 0], shown(data[place], view))


def test_loudness_and_masks_change_training_alone() -> None:
    raw, knobs = torch.full((2, 32, 16, 1), -4.0), SHORT.model_copy(update={"time_mask": 8, "frequency_mask": 4})
    draws = torch.tensor([[0.5, 0.5, 0.5, 0.99, 0.0], [0.5, 0.0, 0.0, 0.0, 0.0]])
    stats = AudioStats(mean=-2.0, std=0.5)
    value = normalized(raw, Excerpt(knobs=knobs), draws, stats)[:, 0]
    blank = torch.zeros(2, 32, 16, dtype=torch.bool)
    blank[0, 14:18] = True  # 4 of 8 frames, from half of 32 - 4
    blank[0, :, :3] = True  # 3.96 of 4 bins
    assert torch.equal(value, torch.where(blank, 2.0, -2.0)), "half of Beta(10, 10) is 0.5: times 1"
    same = normalized(raw, Excerpt(knobs=knobs, is_random=False), torch.empty(2, 0), stats)
    assert (same == -2.0).all()
    louder = normalized(raw, Excerpt(knobs=SHORT), torch.rand(2, 5), stats)[:, 0, 0, 0] + 2.0
    amplitude = (louder / 2).exp()
    assert ((amplitude > 0.5) & (amplitude < 1.5) & (amplitude != 1)).all()


def test_a_picture_has_time_to_the_right_and_frequency_upwards() -> None:
    values = torch.full((1, 1, 8, 4), -1.0)
    values[0, 0, 7, 3] = 1.0  # the last frame's highest bin
    picture = AUDIO.picture(values, STATS)
    assert picture.shape == (1, 4, 8, 3)
    bright = picture.sum(axis=3)[0]
    assert np.unravel_index(bright.argmax(), bright.shape) == (0, 7)


FREE = [name for name in names() if load(name).modalities is None]


@pytest.mark.parametrize("name", FREE)
def test_objectives_of_any_modality_take_spectrograms(name: str) -> None:
    method, supervised, info = load(name), load("supervised"), TrainInfo(8, 3, 4, 2, channels=1)
    hyper = method.Hyper()
    views = AUDIO.views(method.views(hyper), (32, 16), SHORT)
    assert {view.lengths for view in views.specs} == {(32, 16)}
    with torch.device("meta"):
        trunk = encoder.build(Backbone(**BACKBONE), method.initialize, InputShape(1, (32, 16)))
        if method.lesson(hyper):
            teacher = encoder.build(Backbone(**BACKBONE), shape=InputShape(1, (32, 16)))
            info = info._replace(teacher=Frozen(supervised(supervised.Hyper(), {"audio": teacher}, info), trunk.patch))
        batch = blank_batch(views, trunk.patch, 8, "meta", channels=1)
        loss = method(hyper, {"audio": trunk}, info)(batch).loss
        loss.backward()
    assert loss.shape == ()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Three timbres of 0.4 s, at three rates, in three formats, packed."""
    root, draw = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for number in range(48):
        kind, suffix, rate = [("WAV", "wav", 8000), ("FLAC", "flac", 16000), ("OGG", "ogg", 22050)][number // 3 % 3]
        pitch, time = draw.uniform(200, 400), np.arange(int(0.4 * rate)) / rate
        phase = 2 * np.pi * pitch * time
        sound = [np.sin(phase), np.sign(np.sin(phase)), draw.normal(0, 0.5, len(time))][number % 3]
        path = root / "in" / ("sine", "square", "noise")[number % 3] / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * sound, rate, format=kind)
    (root / "in" / "cover.jpg").write_bytes(b"")
    return pack(root / "in", root / "out", shard_size=20).manifest


def test_recordings_are_packed_as_they_are_and_indexed_again(recordings: Manifest) -> None:
    assert (recordings.num_samples, recordings.classes) == (48, ("noise", "sine", "square"))
    assert recordings.members == ("cls", "flac", "ogg", "wav")
    assert shards.index(recordings.root).digest == recordings.digest
    assert shards.check(recordings.root) == []
    with pytest.raises(DataError, match="audio is packed as it is, without resize"):
        pack(Path(recordings.root).parent / "in", Path(recordings.root).parent / "other", resize=8)


def test_statistics_are_of_spectrograms_each_recording_with_the_same_weight() -> None:
    quiet, loud = noise(0.5), 4 * noise(1.0, seed=1)
    values = [log_mel(part, RATE, 128).astype(np.float64) for part in (quiet, loud)]
    stats = AUDIO.statistics([AUDIO.measure(coded(part), READING) for part in (quiet, loud)], READING)
    first, second = (np.mean([np.mean(part**power) for part in values]) for power in (1, 2))
    assert (stats.mean, stats.std) == (
        pytest.approx(first, abs=1e-5),
        pytest.approx((second - first**2) ** 0.5, abs=1e-5),
    )


def test_a_run_is_normalized_by_the_statistics_of_its_own_rate_and_bins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recordings, by the moments of all their values at 32 kHz and 32 bins; measured once."""
    (tmp_path / "in").mkdir()
    loudness = {"quiet": noise(0.5), "loud": 4 * noise(1.0, seed=1)}
    for name, waveform in loudness.items():
        (tmp_path / "in" / f"{name}.wav").write_bytes(coded(waveform))
    packed = pack(tmp_path / "in", tmp_path / "out").manifest
    path = spec(tmp_path, packed, method="simclr", input={"audio": {"frames": 32, "bins": 32, "rate": 32000}}, evals={})

    def stats(*overrides: str) -> AudioStats:
        run = plan(read(path, ["stream.lanes=1", "train.batch=2", *overrides]), tmp_path / "home")[-1]
        found: AudioStats = run.stats
        return found

    values = [
        log_mel(soxr.resample(waveform, RATE, 32000), 32000, 32).astype(np.float64) for waveform in loudness.values()
    ]
    first, second = (np.mean([np.mean(part**power) for part in values]) for power in (1, 2))
    expected = [pytest.approx(first, abs=1e-5), pytest.approx((second - first**2) ** 0.5, abs=1e-5)]
    assert [stats().mean, stats().std] == expected
    monkeypatch.setattr(measured, "statistics", None)
    assert [stats().mean, stats().std] == expected
    usual = packed.fields["audio"]
    assert stats("input.audio.rate=16000", "input.audio.bins=128") == usual
    assert abs(usual.mean - first) > 0.5, "so it matters"


EVALS = {"knn": {"k": 3}, "linear": {"epochs": 2}}


def spec(folder: Path, manifest: Manifest, **sections: object) -> Path:
    told = {
        "name": "timbres",
        "data": {"train": manifest.root, "val": manifest.root},
        "input": {"audio": {"frames": 32, "bins": 32}},
        "backbone": {**BACKBONE, "patch_size": 16},
        "optim": {"lr": 1e-3, "lr_rule": "none"},
        "train": {"duration": {"steps": 4}, "batch": 16, "log_every": 2},
        "evals": EVALS,
        "embed": {"clips": 2},
    }
    del told["backbone"]["image_size"]
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(told | sections))
    return path


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("method", ["mae", pytest.param("simclr", marks=pytest.mark.slow)])
def test_a_whole_run_on_recordings(method: str, recordings: Manifest, tmp_path: Path) -> None:
    longer = {"finetune": {"epochs": 1, "batch": 16, "warmup": 0}} if method == "simclr" else {}
    planned = plan(read(spec(tmp_path, recordings, method=method, evals=EVALS | longer)), tmp_path / "home")
    assert [run.label for run in planned] == ["raw spectrograms", "random encoder", method]
    text = cost.describe([planned])
    assert "32 frames x 32 mel bins" in text
    assert "image" not in text
    assert "pixel" not in text.replace("pixels-", ""), "but for the id of the baseline"
    for run in planned:
        perform(run)
        assert 0 <= run.probes["linear"].result()["top1"] <= 100
    assert planned[0].probes["knn"].result()["top1"] > 60, "timbres can be heard"
    assert all(0 <= planned[-1].probes[name].result()["top1"] <= 100 for name in longer)
    assert [stage.kind for stage in planned[-1].drawings] == ["pictures"] * (method == "mae")


def test_settings_of_images_are_named_and_do_nothing(recordings: Manifest, tmp_path: Path) -> None:
    told = {"hyper": {"crop_min": 0.5, "temperature": 0.2}, "embed": {"crop": 1.0}}
    run = plan(read(spec(tmp_path, recordings, method="simclr", **told)), tmp_path / "home")[-1]
    [line] = [line for line in cost.cautions(run.run, run.info) if "effect" in line]
    assert line == "embed.crop, hyper.crop_min: without effect on audio"


def test_an_excerpt_of_the_same_part_is_asked_for_as_of_images() -> None:
    views = AUDIO.views(Views((Crop(), Crop(of=0))), (32, 16), SHORT)
    assert [view.of for view in views.specs] == [None, 0]


def test_a_trained_encoder_is_given_waveforms() -> None:
    view, waveforms = Excerpt(knobs=SHORT, is_random=False), torch.from_numpy(noise())[None, None]
    np.testing.assert_array_equal(AUDIO.fit(waveforms, view, STATS)[0, ..., 0], heard(noise()))
    with pytest.raises(SpecError, match=r"expected waveforms at 16000 Hz, \('B', 1, 'n'\), not \(1, 16000\)"):
        AUDIO.fit(waveforms[0], view, STATS)
