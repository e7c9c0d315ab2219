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
FLOOR = np.float32(2.0**-23)  # of the power in a bin: float32's epsilon, as Kaldi's


def log_mel(waveform: Waveform, rate: int, bins: int) -> NDArray[np.float32]:
    """(n,) -> (frames, bins): Kaldi's filter bank with Hanning windows and no dither, as far as whole windows go."""
    from scipy.fft import rfft  # twice as fast as numpy's, and a fifth of a second to import

    window, triangles = _window(rate), _triangles(rate, bins)
    if len(waveform) < len(window):
        return np.empty((0, bins), np.float32)
    emphasized = np.zeros_like(waveform)  # the first of a frame counts for nothing: the window is zero there
    np.subtract(waveform[1:], PREEMPHASIS * waveform[:-1], out=emphasized[1:])
    offset = (1 - PREEMPHASIS) * _frames(waveform, rate).mean(axis=1, keepdims=True)  # what is left of a frame's mean
    frames = _frames(emphasized, rate)
    power = np.empty((len(frames), bins), np.float32)
    for part in (slice(start, start + ROWS) for start in range(0, len(frames), ROWS)):
        centered = frames[part] - offset[part]
        centered *= window
        spectrum = rfft(centered, 2 * (len(triangles) - 1), overwrite_x=True)
        np.matmul(np.square(spectrum.real) + np.square(spectrum.imag), triangles, out=power[part])
    return np.log(np.maximum(power, FLOOR, out=power), out=power)


def _frames(waveform: Waveform, rate: int) -> Waveform:
    """(n,) -> (frames, samples of a window), a view"""
    return np.lib.stride_tricks.sliding_window_view(waveform, rate * WINDOW // 1000)[:: rate * SHIFT // 1000]


@functools.cache
def _window(rate: int) -> NDArray[np.float32]:
    """Return the symmetric Hanning window of a frame, which is zero at both ends."""
    return np.hanning(rate * WINDOW // 1000).astype(np.float32)


@functools.cache
def _triangles(rate: int, bins: int) -> NDArray[np.float32]:
    """-> (frequencies, bins): triangles of equal width in mel, each from the center before it to the one after it.

    The highest frequency counts for nothing, as Kaldi's.
    """
    size = 1 << (len(_window(rate)) - 1).bit_length()  # of the Fourier transform
    mel = _mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    edges = np.linspace(_mel(LOWEST), _mel(rate / 2), bins + 2)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((mel - low) / (center - low), (high - mel) / (high - center)).clip(0)
    weights[-1] = 0
    return np.asarray(weights, np.float32)


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)
