"""Tones over noise, synthesised: short melodies of three timbres, two envelopes and two directions, and no recordings.

A table of them shows whether a protocol works, and how objectives differ on simple sounds, not what they do on real
ones.

bundled://sounds/train  1200 melodies of 1.4 s at 8 kHz, 100 of each class
bundled://sounds/val     360 others, 30 of each

A class is a timbre, an envelope and a direction, such as "bell plucked up". What changes within one, and says nothing
of it: pitch over two octaves, steps between notes, tempo, where the melody begins, loudness, and how much noise of what
color there is. So spectrograms of a class need not overlap, and those of several do. A melody is a pure function of its
split and number.
"""

import io
import wave
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.photographs import SPLITS

NUMBER = {"train": 100, "val": 30}  # of a class
RATE, SECONDS = 8000, 1.4
NOTES = 5
TIMBRES = {  # frequencies over that of the note, and amplitudes of the partials
    "bell": ((1.0, 2.76, 5.4, 8.93), (1.0, 0.6, 0.4, 0.25)),  # of a bar that swings freely
    "reed": ((1.0, 3.0, 5.0, 7.0, 9.0), (1.0, 0.6, 0.4, 0.3, 0.2)),
    "string": (tuple(range(1, 11)), tuple(1 / number for number in range(1, 11))),
}
ENVELOPES = ("plucked", "swelling")
DIRECTIONS = ("down", "up")
CLASSES = [f"{timbre} {envelope} {way}" for timbre in TIMBRES for envelope in ENVELOPES for way in DIRECTIONS]
PITCH = (150.0, 600.0)  # hertz of the melody's middle
STEP = (1.5, 4.0)  # semitones from a note to the next
LENGTH = (0.12, 0.2)  # seconds of a note
NOISE = (-40.0, -16.0)  # decibels below the melody
COLOR = (0.0, 1.0)  # exponent of the frequency by which noise falls: from white to pink
LOUDNESS = (0.05, 0.5)  # of the peak

Waveform = NDArray[np.float64]  # (n,)


def samples(split: str) -> Iterator[tuple[str, bytes]]:
    """Yield the class and the WAV of each melody of a split."""
    for number in range(NUMBER[split] * len(CLASSES)):
        title = CLASSES[number % len(CLASSES)]
        yield title, wav(melody(title, np.random.default_rng((SPLITS.index(split), number))))


def melody(title: str, draw: np.random.Generator) -> Waveform:
    """-> (n,) in [-1, 1], at RATE"""
    timbre, envelope, direction = title.split()
    length, middle = draw.uniform(*LENGTH), np.exp(draw.uniform(*np.log(PITCH)))
    steps = np.cumsum([0.0, *draw.uniform(*STEP, NOTES - 1)]) * (1 if direction == "up" else -1)
    pitches = middle * 2 ** ((steps - steps.mean()) / 12)
    tune = np.concatenate([_note(pitch, length, timbre, envelope) for pitch in pitches])
    sound = np.zeros(int(SECONDS * RATE))
    start = draw.integers(len(sound) - len(tune) + 1)
    sound[start : start + len(tune)] = tune / tune.std()
    sound += 10 ** (draw.uniform(*NOISE) / 20) * _noise(len(sound), draw.uniform(*COLOR), draw)
    return np.asarray(draw.uniform(*LOUDNESS) * sound / np.abs(sound).max())


def wav(sound: Waveform) -> bytes:
    """Return a WAV of 16 bits of a waveform in [-1, 1]."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(sound * (2**15 - 1)).astype("<i2").tobytes())
    return sink.getvalue()


def _note(pitch: float, length: float, timbre: str, envelope: str) -> Waveform:
    time = np.arange(int(length * RATE)) / RATE
    partials = [(ratio * pitch, amplitude) for ratio, amplitude in zip(*TIMBRES[timbre], strict=True)]
    heard = [amplitude * np.sin(2 * np.pi * hertz * time) for hertz, amplitude in partials if hertz < RATE / 2]
    return np.asarray(np.sum(heard, axis=0) * _envelope(time / length, envelope))


def _envelope(place: Waveform, envelope: str) -> Waveform:
    """(n,) in [0, 1) -> (n,): silent at both ends, loudest soon after the beginning, or as long before the end"""
    rise = 0.05
    along = place if envelope == "plucked" else 1 - place
    return np.minimum(along / rise, 1) * np.exp(-4 * along) * np.minimum((1 - along) / rise, 1)


def _noise(number: int, color: float, draw: np.random.Generator) -> Waveform:
    """-> (number,), of deviation 1: its power falls by frequency to the power of a color"""
    spectrum = np.fft.rfft(draw.standard_normal(number))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-color / 2)
    noise = np.fft.irfft(spectrum, number)
    return np.asarray(noise / noise.std())
