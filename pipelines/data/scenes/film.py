"""Rendered frames as a video file."""

import io
from collections.abc import Sequence
from fractions import Fraction


def film(frames: Sequence[bytes], rate: int, pixels: int) -> bytes:
    """Return JPEGs as a Matroska file, without what differs from one call to the next.

    rate: frames a second. pixels: a side of each.
    """
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska", container_options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width = stream.height = pixels
        stream.pix_fmt = "yuvj420p"
        for number, data in enumerate(frames):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, rate), True
            packet.pts = packet.dts = number
            packet.duration = 1
            file.mux(packet)
    return sink.getvalue()
