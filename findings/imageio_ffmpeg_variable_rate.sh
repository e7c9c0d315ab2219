#!/usr/bin/env bash
# imageio-ffmpeg gives 90 frames for a video of 10 where PyAV gives 10: a variable frame rate is filled up with copies.
#
# Versions: imageio-ffmpeg 0.8.1 (with its own ffmpeg), av 18.1.0, numpy 2.4.6, Python 3.11.
# Expected: read_frames gives the frames that the file holds, as PyAV does.
# Happens: ffmpeg writes raw frames at a constant rate, and repeats or leaves out frames to keep it. The rate it takes is not
#   the one that read_frames reports in its first item, either: fps times duration is the true number of frames, not the
#   number that comes.
# Why it matters: phones and screen recordings have variable rates. Clips of "16 frames" are then one still image, temporal
#   objectives learn that nothing moves, and frame numbers taken with one library point elsewhere in the other.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check imageio-ffmpeg==0.8.1 av==18.1.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np

TIMES = [0, 100, 200, 300, 400, 500, 3000, 6000, 6100, 6200]  # in ms
with av.open("video.mp4", "w") as sink:
    stream = sink.add_stream("libx264", rate=10, options={"crf": "1"})
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    for number, time in enumerate(TIMES):
        grey = np.full((64, 64, 3), 20 * number, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = time, Fraction(1, 1000)
        sink.mux(stream.encode(frame))
    sink.mux(stream.encode(None))

with av.open("video.mp4") as source:
    by_av = [frame.to_ndarray(format="rgb24")[0, 0, 0].item() for frame in source.decode(video=0)]
frames = imageio_ffmpeg.read_frames("video.mp4")
said = next(frames)
by_imageio = [frame[0] for frame in frames]
print(f"PyAV: {len(by_av)} frames, {by_av}")
print(f"imageio-ffmpeg: {len(by_imageio)} frames, {len(set(by_imageio))} different")
print(f"  and says: {said['fps']} a second, {said['duration']} s")
assert len(by_av) == len(TIMES)
assert len(by_imageio) > 4 * len(TIMES), "the behaviour has changed"
PY
env/bin/python see.py
