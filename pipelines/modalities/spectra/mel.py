"""Log-mel spectrograms by the filter bank of Kaldi, in numpy. n: samples of a recording."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]  # (n,)
WINDOW, SHIFT = 25, 10  # milliseconds of a frame, and from one to the next
PREEMPHASIS = np.float32(0.97)
LOWEST = 20.0  # hertz
ROWS = 200  # frames at a time, that stay in a core's cache: 1.6 times as fast as all at once
GROUP = 32  # bins at a time, that few frequencies are of: 2.5 times as fast as all at once
FLOOR = np.float32(2.0**-23)  # of the power in a bin: float32's epsilon, as Kaldi's


def log_mel(waveform: Waveform, rate: int, bins: int, length: int | None = None) -> NDArray[np.float32]:
    """(n,) -> (length, bins): Kaldi's filter bank with Hanning windows and no dither.

    As many frames as there are whole windows; or `length` of them, with zeros in place of those that there are not.
    """
    from scipy.fft import rfft  # twice as fast as numpy's, and a fifth of a second to import

    window = _window(rate)
    if len(waveform) < len(window):
        return np.zeros((length or 0, bins), np.float32)
    emphasized = np.zeros_like(waveform)  # the first of a frame counts for nothing: the window is zero there
    np.subtract(waveform[1:], PREEMPHASIS * waveform[:-1], out=emphasized[1:])
    frames = _frames(emphasized, rate)[:length]
    offset = (1 - PREEMPHASIS) * _frames(waveform, rate)[:length].mean(axis=1, keepdims=True)  # what is left of a mean
    values = np.zeros((length or len(frames), bins), np.float32)
    power = values[: len(frames)]
    for part in (slice(start, start + ROWS) for start in range(0, len(frames), ROWS)):
        centered = frames[part] - offset[part]
        centered *= window
        spectrum = rfft(centered, _size(rate), overwrite_x=True)
        squares = np.square(spectrum.real) + np.square(spectrum.imag)
        for frequencies, group, triangles in _groups(rate, bins):
            np.matmul(squares[:, frequencies], triangles, out=power[part, group])
    np.log(np.maximum(power, FLOOR, out=power), out=power)
    return values


def _frames(waveform: Waveform, rate: int) -> Waveform:
    """(n,) -> (frames, samples of a window), a view"""
    return np.lib.stride_tricks.sliding_window_view(waveform, rate * WINDOW // 1000)[:: rate * SHIFT // 1000]


@functools.cache
def _window(rate: int) -> NDArray[np.float32]:
    """Return the symmetric Hanning window of a frame, which is zero at both ends."""
    return np.hanning(rate * WINDOW // 1000).astype(np.float32)


def _size(rate: int) -> int:
    """Return the length of the Fourier transform, a power of two."""
    return 1 << (len(_window(rate)) - 1).bit_length()


@functools.cache
def _groups(rate: int, bins: int) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return neighboring bins with the frequencies that they are of: both as slices, and (frequencies, bins)."""
    weights, groups = _triangles(rate, bins), []
    for group in (slice(start, start + GROUP) for start in range(0, bins, GROUP)):
        used = np.flatnonzero(weights[:, group].any(axis=1))
        frequencies = slice(used[0], used[-1] + 1) if len(used) else slice(0)
        groups.append((frequencies, group, np.ascontiguousarray(weights[frequencies, group])))
    return groups


def _triangles(rate: int, bins: int) -> NDArray[np.float32]:
    """-> (frequencies, bins): triangles of equal width in mel, each from the center before it to the one after it.

    The highest frequency counts for nothing, as Kaldi's.
    """
    size = _size(rate)
    mel = _mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    edges = np.linspace(_mel(LOWEST), _mel(rate / 2), bins + 2)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((mel - low) / (center - low), (high - mel) / (high - center)).clip(0)
    weights[-1] = 0
    return np.asarray(weights, np.float32)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)
