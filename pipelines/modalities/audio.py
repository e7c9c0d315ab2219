"""Audio: recordings as log-mel spectrograms, by the filter bank of Audio-MAE.

Huang et al., "Masked autoencoders that listen", NeurIPS 2022, arXiv:2207.06405. Defaults are those of the authors' code
for pre-training on AudioSet: 1024 frames of 128 bins at 16 kHz, recordings rolled and made louder or quieter at random,
values less their mean over two deviations. A shorter recording is followed by zeros, before that normalization; of a
longer one, evaluation sees the beginning, or as many clips as `embed.clips` says. ImageBind (arXiv 2305.05665) sees the
same: the deviation of 9.138 that its code divides by is twice AudioSet's. A part of a recording is equal to that of the
whole, but for Opus at the lowest bit rates, which predicts all from what came before: to a hundredth.

Deviations from the authors' code: channels are averaged; loudness moves all values of a spectrogram, those of silence
and of the zeros too; mean and deviation are of the data set, at the rate and bins in use. The authors subtract a
recording's mean, which changes nothing: Kaldi's filter bank subtracts each frame's. kaldi-native-fbank refuses 128 bins
at 16 kHz, the lowest of which are empty, hence the filter bank here. soxr resamples: aliases of SciPy's polyphase
filter, at -57 dB, would show in logarithms.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.pipelines.modalities.spectra.mel import LOWEST, SHIFT, WINDOW, Waveform, log_mel
from selfsup.sections import Backbone, Embed
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 30  # seconds that are decoded at a time
# samples to decode before those sought, which libsndfile 1.2 alone gives amiss: Vorbis's longest block; of MP3 the
# frames that hold what a later one borrows, up to 255 bytes at 576 samples a frame or 511 at 1152; of Opus half a
# second, after which speech no longer hangs on what came before
AHEAD = {"VORBIS": 8192, "MPEG_LAYER_III": 32 * 576, "OPUS": 24000}
MIN_STD = 0.1  # recordings of silence alone would divide by zero
AUGMENT_DRAWS = 5  # loudness; length and place of a mask of time, and of one of frequency


class AudioInput(Knobs):
    """Spectrograms of recordings, and how those of training are changed."""

    rate: int = knob(16000, "samples a second that recordings are resampled to", ge=1000, le=192000)
    frames: int = knob(1024, "length of a spectrogram, in frames of 25 ms, 10 ms apart", ge=1, le=2**20)
    bins: int = knob(128, "mel bins, from 20 Hz to half the rate", sweep=Choice(64, 128), ge=1, le=2**12)
    deviations: float = knob(2.0, "deviations of the data set that are one unit", sweep=Choice(1.0, 2.0), gt=0)
    roll: bool = knob(True, "training goes on at a recording's beginning beyond its end", sweep=Choice(True, False))
    loudness: bool = knob(True, "training multiplies amplitudes by 0.5 to 1.5", sweep=Choice(True, False))
    time_mask: int = knob(0, "most frames in a row that training blanks", symbol="T", sweep=Choice(0, 48, 192), ge=0)
    frequency_mask: int = knob(0, "most bins in a row that training blanks", symbol="F", sweep=Choice(0, 24, 48), ge=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excerpt(ViewSpec):
    """A part of a recording, as a spectrogram. is_random: anywhere, and changed, for training; else the beginning.

    clips: of several from the beginning to the end in its place, in one array; ImageBind tests by three of two seconds.
    """

    modality: ClassVar[str] = "audio"
    knobs: AudioInput
    is_random: bool = True
    clips: int = 1

    @property
    def num_parts(self) -> int:
        return self.clips

    @property
    def milliseconds(self) -> int:
        return SHIFT * (self.knobs.frames - 1) + WINDOW

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.clips * self.knobs.frames, self.knobs.bins

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.knobs.rate, *self.lengths, self.knobs.roll, self.is_random, self.of


class AudioReading(Reading):
    """The settings by which recordings are measured: there is one value a frame and bin.

    rate, bins: of their spectrograms; a manifest's are at the defaults.
    """

    channels: Literal[1] = 1
    rate: int = AudioInput().rate
    bins: int = AudioInput().bins


class AudioStats(AudioReading):
    """mean, std: of log-mel spectrograms at a rate and number of bins."""

    mean: float
    std: Annotated[float, Field(gt=0)]

    def identity(self) -> list[Any]:
        return [self.mean, self.std]


@final
class Audio(Modality):
    """Log-mel spectrograms are made on the host, of what is decoded for them; loudness and masks are the device's.

    Places and extents are in milliseconds and hertz.
    """

    suffixes, others = ("wav", "flac", "ogg"), ("opus", "mp3", "aiff", "aif")
    requires = ("soundfile", "soxr")
    axes, values = ("frame", "mel bin"), "spectrograms"
    given = "waveforms", "(B, 1, n), at the rate of `input.audio`"
    Input, Reading, Stats = AudioInput, AudioReading, AudioStats
    idle, place_draws = ("embed.crops", "backbone.image_size", "embed.crop"), 1
    cheap: ClassVar[dict[str, Any]] = {"frames": 32, "bins": 32}

    def sizes(self, backbone: Backbone, knobs: AudioInput) -> tuple[int, ...]:  # noqa: ARG002
        return knobs.frames, knobs.bins

    def views(self, views: Views, sizes: tuple[int, ...], knobs: AudioInput) -> Views:  # noqa: ARG002
        excerpts = tuple(Excerpt(knobs=knobs, mask=view.mask, of=view.of) for view in views.specs)
        return dataclasses.replace(views, specs=excerpts)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: AudioInput) -> Excerpt:  # noqa: ARG002
        return Excerpt(knobs=knobs, is_random=False)

    def tested(self, view: Excerpt, embed: Embed) -> Excerpt:
        return dataclasses.replace(view, clips=embed.clips)

    def extent(self, data: Data, reading: AudioReading) -> tuple[int, ...]:  # noqa: ARG002
        with _opened(data) as file:
            return max(1, 1000 * file.frames // file.samplerate), file.samplerate // 2

    def place(self, view: Excerpt, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        length = extents[:, 0].astype(np.float64)
        shown = np.minimum(length, view.milliseconds if view.clips == 1 else np.inf)  # the whole, of which `load` cuts
        places = length if view.knobs.roll else length - shown + 1
        start = np.floor(draws[:, 0] * places) if view.is_random else np.zeros_like(length)
        band = np.full_like(length, LOWEST), np.full_like(length, view.knobs.rate / 2 - LOWEST)
        return np.stack([start, band[0], shown, band[1], np.zeros_like(length)], axis=1)

    def raw(self, view: Excerpt, reading: AudioReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.float32

    def load(self, data: Data, boxes: Boxes, views: Sequence[Excerpt], reading: AudioReading) -> list[Raw]:  # noqa: ARG002
        with _opened(data) as file:
            return [_excerpts(file, _starts(box, view), view) for box, view in zip(boxes, views, strict=True)]

    def fit(self, samples: "Tensor", view: Excerpt, reading: AudioReading) -> "Tensor":
        """(B, 1, n), waveforms at the rate of `input.audio` -> (B, frames, bins, 1), of their beginning"""
        import torch

        if samples.ndim != 3 or samples.shape[1] != reading.channels:
            raise SpecError(f"expected waveforms at {view.knobs.rate} Hz, ('B', 1, 'n'), not {tuple(samples.shape)}")
        values = [_spectrogram(waveform, view.knobs) for waveform in samples[:, 0].cpu().float().numpy()]
        return torch.from_numpy(np.stack(values)).to(samples.device)

    def augment_draws(self, view: Excerpt) -> int:
        return AUGMENT_DRAWS if view.is_random else 0

    def augment(self, raw: "Tensor", view: Excerpt, draws: "Tensor") -> "Tensor":
        values, knobs = raw.movedim(-1, 1), view.knobs
        if view.is_random and knobs.loudness:
            values = values + _louder(draws[:, :1]).to(raw.device)[..., None, None]
        if view.is_random:
            values = _masked(values, draws[:, 1:3], knobs.time_mask, 2)
            values = _masked(values, draws[:, 3:5], knobs.frequency_mask, 3)
        return values

    def normalize(self, values: "Tensor", view: Excerpt, stats: AudioStats) -> "Tensor":
        return (values - stats.mean) / (view.knobs.deviations * stats.std)

    def picture(self, values: "Tensor", stats: AudioStats) -> NDArray[np.uint8]:  # noqa: ARG002
        """-> (B, bins, frames, 3): time to the right, frequency upwards, from -1 dark to 1 bright"""
        from matplotlib import colormaps

        level = ((values[:, 0] + 1) / 2).clamp(0, 1).flip(2).mT
        return np.asarray(colormaps["magma"](level.numpy(), bytes=True)[..., :3])

    def unmeasured(self, stats: AudioStats, knobs: AudioInput) -> AudioReading | None:
        has_both = (stats.rate, stats.bins) == (knobs.rate, knobs.bins)
        return None if has_both else AudioReading(rate=knobs.rate, bins=knobs.bins)

    def measure(self, data: Data, reading: AudioReading) -> tuple[float, float]:
        rate, bins = reading.rate, reading.bins
        with _opened(data) as file:
            parts = [log_mel(_resampled(part, file, rate), rate, bins) for part in _blocks(file)]
        values = np.concatenate(parts).astype(np.float64)
        return float(values.mean()), float((values**2).mean())

    def check(self, data: Data, reading: AudioReading) -> None:  # noqa: ARG002
        with _opened(data) as file:
            _ = [len(part) for part in _blocks(file)]

    def statistics(self, measures: Sequence[tuple[float, float]], reading: AudioReading) -> AudioStats:
        first, second = np.mean(measures, axis=0)
        std = np.sqrt(max(second - first**2, MIN_STD**2))
        return AudioStats(**reading.model_dump(), mean=round(float(first), 6), std=round(float(std), 6))


def _starts(box: NDArray[np.float64], view: Excerpt) -> list[float]:
    """(5,) -> where each clip begins, in milliseconds, at equal distances; of one the box itself"""
    if view.clips == 1:
        return [float(box[0])]
    return [*map(float, np.floor(np.linspace(0, max(0.0, box[2] - view.milliseconds), view.clips)))]


def _excerpts(file: Any, starts: Sequence[float], view: Excerpt) -> Raw:
    """-> (clips * frames, bins, 1): spectrograms from starts in milliseconds on. Raises DecodeError."""
    number = ceil((view.milliseconds + SHIFT) * file.samplerate / 1000)
    waveforms = (_excerpt(file, ceil(start * file.samplerate / 1000), number, view) for start in starts)
    values = [_spectrogram(_resampled(waveform, file, view.knobs.rate), view.knobs) for waveform in waveforms]
    return values[0] if len(values) == 1 else np.concatenate(values)


def _excerpt(file: Any, first: int, number: int, view: Excerpt) -> Waveform:
    """Return so many samples, at most those of the recording, which goes on at its beginning where it is rolled."""
    is_rolled = view.is_random and view.knobs.roll
    if is_rolled and file.frames <= number:
        return np.roll(_read(file, 0, number), -first)  # a seek costs as much as a tenth of a FLAC's decoding
    waveform = _read(file, first, number)
    if is_rolled and len(waveform) < number:
        waveform = np.concatenate([waveform, _read(file, 0, number - len(waveform))])
    return waveform


def _spectrogram(waveform: Waveform, knobs: AudioInput) -> Raw:
    """(n,) -> (frames, bins, 1), with zeros at the end of a short one"""
    return log_mel(waveform, knobs.rate, knobs.bins, knobs.frames)[..., None]


def _blocks(file: Any) -> Iterator[Waveform]:
    for first in range(0, file.frames, BLOCK * file.samplerate):
        yield _read(file, first, BLOCK * file.samplerate)


def _read(file: Any, first: int, number: int) -> Waveform:
    """Return so many samples, as far as the recording goes. Raises DecodeError where it ends too soon."""
    expected = max(0, min(number, file.frames - first))
    if not expected:
        return np.empty(0, np.float32)
    ahead = min(first, AHEAD.get(file.subtype, 0))
    file.seek(first - ahead)
    samples = file.read(ahead + expected, dtype="float32", always_2d=True)[ahead:]
    waveform: Waveform = samples[:, 0] if file.channels == 1 else samples.mean(axis=1)
    if len(waveform) < expected or not np.isfinite(waveform).all():
        raise DecodeError(f"{len(waveform)} of {expected} samples from {first} on are there, or some are no numbers")
    return waveform


def _resampled(waveform: Waveform, file: Any, rate: int) -> Waveform:
    import soxr

    if file.samplerate == rate:
        return waveform
    return np.asarray(soxr.resample(waveform, file.samplerate, rate))


@contextmanager
def _opened(data: Data) -> Iterator[Any]:
    """Yield a recording of a window at least. Raises DecodeError for what libsndfile cannot read, also in the block."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if 1000 * file.frames < WINDOW * file.samplerate:
                raise DecodeError(f"{file.frames} samples at {file.samplerate} Hz; expected {WINDOW} ms at least")
            yield file
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"a damaged recording, or none: {error.error_string}") from error


def _louder(draws: "Tensor") -> "Tensor":
    """(B, 1) in [0, 1) -> (B, 1): what an amplitude of 0.5 to 1.5, by Beta(10, 10), adds to a logarithm of power"""
    from scipy.special import betaincinv

    return 2 * draws.new_tensor(betaincinv(10, 10, draws.numpy()) + 0.5).log()


def _masked(values: "Tensor", draws: "Tensor", longest: int, axis: int) -> "Tensor":
    """(B, 1, frames, bins), (B, 2) -> (B, 1, frames, bins): zeros in a stretch of an axis, uniformly long and placed.

    SpecAugment (arXiv 1904.08779), as torchaudio draws it.
    """
    import torch

    if not longest:
        return values
    size = values.shape[axis]
    length = draws[:, 0] * min(longest, size)
    start = (draws[:, 1] * (size - length)).floor()
    place = torch.arange(size)
    inside = (place >= start[:, None]) & (place < (start + length.floor())[:, None])
    shape = [len(values), 1, 1, 1]
    shape[axis] = size
    return values.masked_fill(inside.view(shape).to(values.device), 0.0)
