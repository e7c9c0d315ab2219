"""Values of TIFFs as they are stored, of any number of channels, as satellites' are."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.modality import Data, DecodeError

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLAIN = (0, 1, 2)  # photometric interpretations whose values are what they seem: white is zero, black is zero, RGB
LUMA = (19595, 38470, 7471)  # of red, green and blue in 2^16, ITU-R BT.601, as Pillow's


def size(data: Data) -> tuple[int, int] | None:
    """Return (height, width) of a TIFF; None for any other format. Raises DecodeError."""
    values = _opened(data, header=True)
    return None if values is None else (values.shape[0], values.shape[1])


def read(data: Data) -> tuple[NDArray[Any], int] | None:
    """-> (H, W, bands), uint8 or uint16, and the value that is white; None for a format that Pillow reads"""
    values = _opened(data, header=False)
    if values is None:
        return None
    if values.dtype not in (np.uint8, np.uint16):
        raise DecodeError(f"values of type {values.dtype}; expected integers of 8 or 16 bits: save it with those")
    return values, int(np.iinfo(values.dtype).max)


def channels(values: NDArray[Any], wanted: int) -> NDArray[Any]:
    """(H, W, bands) -> (H, W, wanted): all of them, gray from colors, RGB from gray; alpha is dropped for these two.

    Raises DecodeError where there are other bands.
    """
    number = values.shape[2]
    if number == wanted:
        return values
    if wanted == 1 and number in (3, 4):
        red, green, blue = values[..., :3].astype(np.int64).transpose(2, 0, 1)
        gray: NDArray[Any] = (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + 2**15 >> 16)[..., None]
        return gray
    if wanted in (1, 3) and number <= 2:
        return values[..., :1].repeat(wanted, axis=2)
    if wanted == 3 and number == 4:
        return values[..., :3]
    raise DecodeError(f"{number} channels; expected {wanted}: index shards of images with one number of channels")


def _opened(data: Data, *, header: bool) -> NDArray[Any] | None:
    """-> (H, W, bands); values are not read for `header`, None for another format or colors that need conversion"""
    try:
        return _tiff(data, header=header) if bytes(data[:4]) in TIFF else None
    except DecodeError:
        raise
    except Exception as error:  # tifffile raises many types on corrupt bytes
        raise DecodeError(f"a damaged, truncated or unreadable TIFF: {error}") from error


def _tiff(data: Data, *, header: bool) -> NDArray[Any] | None:
    import tifffile  # takes a while, and most images are no TIFFs

    # a file of an OME-TIFF set is its own planes: those of the others would be zeros
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as file:
        page, series = file.pages.first, file.series[0]
        if page.photometric not in PLAIN:
            return None
        values = np.broadcast_to(np.zeros((), series.dtype), series.shape) if header else series.asarray()
        inverted = page.photometric == 0 and not header
        values = np.iinfo(values.dtype).max - values if inverted and values.dtype.kind == "u" else values
        return _last(values, channel=next((axis for axis, name in enumerate(series.axes) if name in "SC"), None))


def _last(values: NDArray[Any], channel: int | None = None) -> NDArray[Any]:
    """(H, W), (H, W, bands) or (bands, H, W) -> (H, W, bands); of a stack of images each is a band.

    channel: the axis of bands; None: the shortest of three, the last if that is undecided.
    """
    values = values.squeeze() if values.ndim > 3 else values
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise DecodeError(f"an array of shape {values.shape}; expected height, width and channels")
    if channel is None or channel >= 3:
        channel = 0 if values.shape[0] < min(values.shape[1:]) else 2
    return np.moveaxis(values, channel, 2)
