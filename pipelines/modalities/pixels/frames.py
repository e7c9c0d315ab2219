"""Frames of a video at points of time: exactly, by presentation time stamps, upright, no more decoded than needed.

Time is in milliseconds from the first frame that is shown. A frame is shown from its time stamp on, until the next one
is, whatever the rate; the last one for ever, and the first one before it, too. Matroska rounds time stamps to
milliseconds, so that a frame may be half of one late. Pixels count as squares.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from selfsup.modality import Data, DecodeError
from selfsup.views import Center, Crop

Frames = NDArray[np.uint8]  # (n, H, W, 3)
LATE = 0.5  # milliseconds
APART = 2000.0  # milliseconds between frames, beyond which what is between them is not read
SHORT = 500.0  # milliseconds by which a header may say too much
ENDS, RECALLED = 4096, 2**17  # bytes at both ends of a file, by which it is known again; files
BACK = 1000.0  # milliseconds that a seek goes farther back where it came too late, then twice as many
TIMELESS = "a video without time stamps"
UNORDERED = "H.264 in AVI, whose frames are shown in another order than AVI has times for; convert it to MP4"


class VideoHeader(NamedTuple):
    """Length and size of a video. milliseconds: that it lasts. height, width: upright."""

    milliseconds: int
    height: int
    width: int


class _Video(NamedTuple):
    """An open file, its first video, and the time stamp of the frame that is shown first."""

    file: Any
    stream: Any
    start: int

    def time(self, stamp: int) -> float:
        return float(1000 * (stamp - self.start) * self.stream.time_base)

    def seek(self, time: float) -> None:
        """Go to the key frame before a time, or farther back: an AVI counts from the frame that is stored first."""
        stamp = int(max(0.0, time) / 1000 / self.stream.time_base) + (self.stream.start_time or 0)
        self.file.seek(stamp, stream=self.stream)


_known: dict[bytes, VideoHeader] = {}


def header(data: Data) -> VideoHeader:
    """Return length and size; what was seen before is recalled. Raises DecodeError."""
    ends = hashlib.blake2b(bytes(data[:ENDS]) + bytes(data[-ENDS:]) + str(len(data)).encode(), digest_size=16).digest()
    if (known := _known.get(ends)) is None:
        if len(_known) == RECALLED:
            _known.clear()
        known = _known[ends] = _header(data)
    return known


def _header(data: Data) -> VideoHeader:
    """Decode one frame, as only frames say how they are turned."""
    with _opened(data) as video:
        frame = next(video.file.decode(video.stream), None)
        if frame is None:
            raise DecodeError("a video without frames")
        sides = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
        return VideoHeader(max(1, round(_length(video) or _measured(video))), *sides)


def frames(data: Data, times: Sequence[float]) -> Frames:
    """(n,) milliseconds, ascending -> (n, H, W, 3): what is shown then. Raises DecodeError for a damaged video."""
    wanted = np.asarray(times, np.float64)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > APART) + 1)
    with _opened(data) as video:
        return np.concatenate([_run(video, run) for run in runs])


def every(data: Data) -> Iterator[NDArray[np.uint8]]:
    """Yield each frame, (H, W, 3). Raises DecodeError where one is damaged, or the end is missing."""
    with _opened(data) as video:
        end = 0.0
        for frame in video.file.decode(video.stream):
            if frame.pts is None:
                raise DecodeError(TIMELESS)
            end = video.time(frame.pts + (frame.duration or 0))
            yield _upright(frame)
        _check_end(video, end)


def cropped(
    frames: Frames, numbers: NDArray[np.integer], box: Sequence[float], crop: Crop | Center, *, is_mirrored: bool
) -> Frames:
    """(n, H, W, 3), (T,) numbers of frames -> (T, size, size, 3), resized with antialiasing, as torchvision does.

    box: top, left, height, width, in whole pixels.
    """
    top, left, height, width = map(int, box)
    used, place = np.unique(numbers, return_inverse=True)
    part = torch.from_numpy(frames[used, top : top + height, left : left + width]).permute(0, 3, 1, 2)
    small = F.interpolate(part, crop.lengths, mode=crop.resample, antialias=True).permute(0, 2, 3, 1)
    made: Frames = (small.flip(2) if is_mirrored else small).numpy()[place]
    return made


def _run(video: _Video, times: NDArray[np.float64]) -> Frames:
    """(n,) -> (n, H, W, 3): of frames that are near each other"""
    packets = _packets(video, times + LATE)
    shown = sorted((packet.pts, packet.duration or 0) for packet in packets if not packet.is_discard)
    if not shown:
        raise DecodeError("a video without frames")
    starts = [video.time(stamp) for stamp, _ in shown]
    if times[-1] > starts[-1]:
        _check_end(video, video.time(sum(shown[-1])), times[-1])
    numbers = np.searchsorted(starts, times + LATE, side="right") - 1
    asked = [shown[max(0, number)][0] for number in numbers]
    made = _decoded(video.stream, packets, set(asked))
    return np.stack([made[stamp] for stamp in asked])


def _packets(video: _Video, times: NDArray[np.float64]) -> list[Any]:
    """Return packets from the key frame before the first of these times, or the first of all, to the last time."""
    back = 0.0
    while True:
        video.seek(times[0] - back)
        packets = list(_until(video, times[-1]))
        if back > times[0] or (packets and video.time(packets[0].pts) <= times[0]):
            return packets
        back = 2 * back or BACK


def _until(video: _Video, end: float) -> Iterator[Any]:
    for packet in video.file.demux(video.stream):
        is_later = packet.dts is not None and video.time(packet.dts) > end  # nothing is shown before it is decoded
        if is_later or not packet.size:  # the last packet, which is empty
            return
        if packet.pts is None:
            raise DecodeError(TIMELESS)
        yield packet


def _decoded(stream: Any, packets: Sequence[Any], asked: set[int]) -> dict[int, NDArray[np.uint8]]:
    """Return time stamp -> (H, W, 3) of frames that are asked for; others are left out where none depends on them."""
    made: dict[int, NDArray[np.uint8]] = {}
    codec = stream.codec_context
    for packet in [*packets, None]:
        codec.skip_frame = "DEFAULT" if packet is None or packet.pts in asked else "NONREF"
        made |= {frame.pts: _upright(frame) for frame in codec.decode(packet) if frame.pts in asked}
        if len(made) == len(asked):
            return made
    raise DecodeError(f"{len(made)} of {len(asked)} frames can be decoded")


def _upright(frame: Any) -> NDArray[np.uint8]:
    """-> (H, W, 3)"""
    if frame.is_corrupt:
        raise DecodeError("a damaged frame")
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, frame.rotation // 90) if frame.rotation else pixels


def _check_end(video: _Video, end: float, asked: float = np.inf) -> None:
    """Raise DecodeError where frames end before a time that is asked for, and before the header says."""
    length = _length(video)
    if length is not None and end < min(length, asked) - SHORT:
        raise DecodeError(f"a video that ends at {end:.0f} of {length:.0f} ms")


def _length(video: _Video) -> float | None:
    """Return the milliseconds that a video lasts by its header; None where that does not say so."""
    file, stream, _ = video
    if stream.duration is not None:
        return float(1000 * stream.duration * stream.time_base)
    if clock := stream.metadata.get("DURATION"):  # of one of Matroska's tracks
        hours, minutes, seconds = map(float, clock.split(":"))
        return 1000 * (3600 * hours + 60 * minutes + seconds)
    return file.duration / 1000 if file.duration and len(file.streams) == 1 else None


def _measured(video: _Video) -> float:
    """Return the milliseconds that a video lasts by its time stamps."""
    video.file.seek(0)
    return max(video.time(packet.pts + (packet.duration or 0)) for packet in _until(video, np.inf))


@contextmanager
def _opened(data: Data) -> Iterator[_Video]:
    """Yield the first video of a file. Raises DecodeError for what FFmpeg cannot read, also in the block."""
    import av

    try:
        with av.open(io.BytesIO(data)) as file:
            if not file.streams.video:
                raise DecodeError("a file without video")
            stream = file.streams.video[0]
            stream.codec_context.thread_count = 1  # samples are decoded side by side
            yield _Video(file, stream, _start(file, stream))
    except (av.FFmpegError, ValueError) as error:
        raise error if isinstance(error, DecodeError) else DecodeError(f"a damaged video, or none: {error}") from error


def _start(file: Any, stream: Any) -> int:
    """Return the time stamp of the frame that is shown first, which of an AVI is not the one that FFmpeg says."""
    if file.format.name != "avi":
        return stream.start_time or 0
    if stream.codec_context.name == "h264" and stream.codec_context.has_b_frames:
        raise DecodeError(UNORDERED)
    first = next(file.demux(stream)).pts
    file.seek(0)
    return first or 0
