"""Bundled clips with sounds: what is heard fits what is seen."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from selfsup.pipelines.data import bundled, shards
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.scenes import impacts
from selfsup.pipelines.data.scenes.draw import FOCAL, SIDE
from selfsup.pipelines.data.scenes.render import FLOOR, render, trace
from selfsup.pipelines.modalities.pixels.frames import every

FINE = 0.005  # seconds


def heard(data: bytes | memoryview) -> np.ndarray:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15


def onsets(sound: np.ndarray) -> list[float]:
    """Return where the power of 5 ms is three times that of each of the four before, in seconds."""
    power = (sound.reshape(-1, 40) ** 2).mean(1)
    loud = [number for number in range(4, len(power)) if power[number] > 3 * power[number - 4 : number].max()]
    return [number * FINE for number in loud if number - 1 not in loud]


def fallen(fall: impacts.Fall, step: float = 1e-5) -> tuple[list[float], list[float]]:
    """Return when it strikes, and its height at each time, by small steps of time."""
    height, speed, strikes, heights = fall.height, 0.0, [], []
    for number in range(int(impacts.SECONDS / step)):
        heights.append(height)
        if number * step < fall.release:
            continue
        speed -= 9.81 * step
        height += speed * step
        if height <= 0 and speed < -1e-3:
            strikes.append(number * step)
            height, speed = 0.0, -fall.bounce * speed
            if speed < 0.5:  # it rests
                return strikes, heights + [0.0] * (int(impacts.SECONDS / step) - len(heights))
    return strikes, heights


def lowest(own: impacts.Impact, time: float) -> int:
    """Return the lowest row that shows what falls, of 480, by the ray caster."""
    camera = own.shot.left._replace(size=480, focal=FOCAL * 480 / SIDE)
    return int(np.flatnonzero((trace(own.scene(time), camera).surface == FLOOR + 1).any(axis=1))[-1])


@pytest.mark.parametrize("number", range(8))
def test_each_strike_is_heard_when_the_object_meets_the_floor(number: int) -> None:
    """Onsets of the sound, and a fall by small steps of time."""
    own = impacts.impact("train", number)
    strikes, heights = fallen(own.fall)
    found = onsets(impacts.waveform("train", number))
    assert len(found) == len(strikes) >= 1
    assert all(-1e-3 < strike - onset < 2 * FINE for strike, onset in zip(strikes, found, strict=True))
    for time in np.arange(0, impacts.SECONDS, 0.07):
        assert own.fall.height_at(time) == pytest.approx(heights[round(time * 1e5)], abs=2e-3)


def test_it_is_seen_lowest_when_it_strikes() -> None:
    own = impacts.impact("train", 0)
    for onset in onsets(impacts.waveform("train", 0)):
        rows = [lowest(own, onset + late) for late in (-0.05, FINE, 0.05)]
        assert rows[1] > rows[0]
        assert rows[1] > rows[2]


def test_clips_are_packed_with_sounds_captions_and_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="pip install 'selfsup[video]'")
    pytest.importorskip("soundfile", reason="pip install 'selfsup[audio]'")
    monkeypatch.setattr(impacts, "NUMBER", {"train": 5, "val": 1})
    data = {
        name: load(bundled.resolve(f"bundled://{name}/train", tmp_path)) for name in ("impacts", "silent", "mismatched")
    }
    sounds, clips = {}, {}
    for name, own in data.items():
        assert own.classes == ("glass", "metal", "rubber", "wood")
        assert shards.check(own.home) == []
        videos, recordings = (SampleReader(own, kind).read(np.arange(5)) for kind in ("video", "audio"))
        assert [sample.label for sample in videos] == [0, 1, 2, 3, 0]
        clips[name] = [bytes(sample.data) for sample in videos]
        sounds[name] = [heard(sample.data) for sample in recordings]
    assert clips["impacts"] == clips["silent"] == clips["mismatched"]
    own, shown = impacts.impact("train", 3), list(every(clips["impacts"][3]))
    assert len(shown) == 12
    camera = own.shot.left._replace(size=48, focal=FOCAL / 2)
    for number in (0, 4, 11):
        expected = render(own.scene(number / 10), camera).astype(float)
        assert np.abs(shown[number] - expected).mean() < 8  # of a JPEG
    assert onsets(sounds["impacts"][3]) == onsets(impacts.waveform("train", 3))
    assert not np.any(sounds["silent"])
    key = [sound.tobytes() for sound in sounds["impacts"]]
    order = [key.index(sound.tobytes()) for sound in sounds["mismatched"]]
    assert sorted(order) == list(range(5))
    assert order != list(range(5))
    texts = [bytes(sample.data) for sample in SampleReader(data["impacts"], "text").read(np.arange(5))]
    assert texts[3] == b"a large panel of wood strikes three times beside a white box"


def test_larger_objects_sound_lower_and_materials_their_own_way() -> None:
    """The frequency of the most power after a strike is the lowest partial, over the radius."""
    for number in range(8):
        own, sound = impacts.impact("val", number), impacts.waveform("val", number)
        start = round(own.fall.strikes()[0][0] * 8000)
        part = sound[start : start + 1600]
        power = np.abs(np.fft.rfft(part, 16000))
        lowest = {"glass": 900, "metal": 420, "rubber": 110, "wood": 240}[own.material] * 0.65 / own.radius
        assert power.argmax() / 2 == pytest.approx(lowest, rel=0.05)
