"""Log-mel spectrograms by the filter bank of Kaldi, in numpy. n: samples of a recording."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]  # (n,)
WINDOW, SHIFT = 25, 10  # milliseconds of a frame, and from one to the next
PREEMPHASIS = 0.97
LOWEST = 20.0  # hertz
FLOOR = 2.0**-23  # of the power in a bin: float32's epsilon, as Kaldi's


def log_mel(waveform: Waveform, rate: int, bins: int) -> NDArray[np.float32]:
    """(n,) -> (frames, bins): Kaldi's filter bank with Hanning windows and no dither, as far as whole windows go."""
    window, triangles = _window(rate), _triangles(rate, bins)
    if len(waveform) < len(window):
        return np.empty((0, bins), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), len(window))[:: rate * SHIFT // 1000]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames[:, 1:] -= PREEMPHASIS * frames[:, :-1]
    frames[:, 0] *= 1 - PREEMPHASIS
    spectrum = np.fft.rfft(frames * window, 2 * (len(triangles) - 1))
    power = (spectrum.real**2 + spectrum.imag**2) @ triangles
    return np.log(np.maximum(power, FLOOR)).astype(np.float32)


@functools.cache
def _window(rate: int) -> NDArray[np.float64]:
    """Return the symmetric Hanning window of a frame."""
    return np.hanning(rate * WINDOW // 1000)


@functools.cache
def _triangles(rate: int, bins: int) -> NDArray[np.float64]:
    """-> (frequencies, bins): triangles of equal width in mel, each from the center before it to the one after it.

    The highest frequency counts for nothing, as Kaldi's.
    """
    size = 1 << (len(_window(rate)) - 1).bit_length()  # of the Fourier transform
    mel = _mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    edges = np.linspace(_mel(LOWEST), _mel(rate / 2), bins + 2)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    weights: NDArray[np.float64] = np.minimum((mel - low) / (center - low), (high - mel) / (high - center)).clip(0)
    weights[-1] = 0
    return weights


def _mel(hertz: Any) -> Any:
    return 1127.0 * np.log1p(hertz / 700.0)
