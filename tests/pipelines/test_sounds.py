"""The synthesised melodies: what a class is, by the sound alone, and that nothing else tells it."""

import io
import wave

import numpy as np
import pytest

from selfsup.modality import load as load_modality
from selfsup.pipelines.data import bundled, shards, sounds
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.modalities.audio import AudioInput, Excerpt

PURE = {"NOISE": (-90.0, -90.0), "LOUDNESS": (0.5, 0.5)}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PURE.items():
        monkeypatch.setattr(sounds, name, value)


def notes(sound: np.ndarray) -> list[np.ndarray]:
    """Return the notes of a melody without noise: it is silent between them."""
    power = np.convolve(sound**2, np.ones(80) / 80, "same")  # 10 ms
    heard = np.flatnonzero(power > 1e-5 * power.max())
    return np.array_split(sound[heard[0] : heard[-1]], sounds.NOTES)


def partials(note: np.ndarray) -> np.ndarray:
    """-> (K,): frequencies of peaks of the spectrum that are a tenth of the highest at least, in hertz"""
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 8 * sounds.RATE))
    inner = spectrum[1:-1]
    peak = (inner > spectrum[:-2]) & (inner > spectrum[2:]) & (inner > 0.1 * spectrum.max())
    return (np.flatnonzero(peak) + 1) / 8


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("title", sounds.CLASSES)
def test_a_class_is_what_is_heard(title: str) -> None:
    timbre, envelope, direction = title.split()
    for seed in range(5):
        heard = notes(sounds.melody(title, np.random.default_rng(seed)))
        lowest = [partials(note)[0] for note in heard]
        assert (np.diff(lowest) > 0).all() == (direction == "up")
        assert (np.diff(lowest) < 0).all() == (direction == "down")
        ratios = partials(heard[0]) / lowest[0]
        second = {"bell": 2.76, "reed": 3.0, "string": 2.0}[timbre]
        assert ratios[1] == pytest.approx(second, abs=0.1)
        power = heard[1] ** 2
        assert (np.average(np.arange(len(power)), weights=power) < len(power) / 2) == (envelope == "plucked")


def test_melodies_are_a_function_of_split_and_number() -> None:
    one, two = (next(sounds.samples("train")) for _ in range(2))
    assert one == two
    assert next(sounds.samples("val")) != one
    title, data = one
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (8000, 11200, 1)
        peak = np.abs(np.frombuffer(file.readframes(11200), "<i2")).max() / 2**15
    assert title == "bell plucked down"
    assert 0.05 <= peak <= 0.5


def test_without_sound_all_classes_are_the_same(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing but what is heard tells a class: not length, name, place or format of a recording."""
    monkeypatch.setattr(sounds, "NUMBER", {"train": 2, "val": 2})
    monkeypatch.setattr(sounds, "melody", lambda *_: np.zeros(11200))
    root = bundled.build("sounds", tmp_path)
    told = load(str(root / "train"))
    assert (told.num_samples, told.classes) == (24, tuple(sorted(sounds.CLASSES)))
    assert shards.check(told.home) == []
    kind, view = load_modality("audio"), Excerpt(knobs=AudioInput(rate=8000, frames=32, bins=16), is_random=False)
    data = sounds.wav(sounds.melody("bell plucked up", np.random.default_rng(0)))
    box = kind.place(view, np.array([kind.extent(data, None)]), np.zeros((1, 1)))
    assert len(np.unique(kind.load(data, box, [view], None)[0])) == 1


def test_the_set_is_packed_with_equally_many_of_each_class(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "NUMBER", {"train": 3, "val": 1})
    root = bundled.build("sounds", tmp_path)
    for split, number in sounds.NUMBER.items():
        told = load(str(root / split))
        assert told.num_samples == told.num_labelled == 12 * number
        assert set(told.members) == {"wav", "cls"}
