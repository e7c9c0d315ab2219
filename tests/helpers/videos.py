"""Videos of tests, made by PyAV, whose frames say their number."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

LEVELS = 16  # between numbers of frames: what a lossy codec leaves of them
MILLISECONDS = Fraction(1, 1000)


def numbered(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """-> (H, W, 3): a gray whose level is 16 times the number, modulo 15, with a white corner at the top left"""
    frame = np.full((height, width, 3), LEVELS * (number % 15), np.uint8)
    frame[: height // 2, : width // 2] = 255
    return frame


def number_of(frame: np.ndarray) -> int:
    """(H, W, 3) -> the number, modulo 15, of an upright frame, read at its lower right"""
    height, width = frame.shape[:2]
    return round(float(frame[height * 3 // 4 :, width * 3 // 4 :].mean()) / LEVELS)


def coded(
    frames: Sequence[np.ndarray],
    stamps: Sequence[int] | None = None,
    *,
    kind: str = "mp4",
    codec: str = "libx264",
    rate: int = 10,
    turn: int = 0,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> bytes:
    """Return a file of frames. stamps: in milliseconds; one after the other at the rate if None.

    turn: degrees counterclockwise that a player turns it by.
    """
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format=kind) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.time_base = stream.codec_context.time_base = MILLISECONDS if stamps else Fraction(1, rate)
        if turn:
            stream.set_display_rotation(turn)
        for number, pixels_of_frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of_frame), format="rgb24")
            frame.pts, frame.time_base = stamps[number] if stamps else number, stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return sink.getvalue()
