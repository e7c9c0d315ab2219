#!/usr/bin/env bash
# Of H.264 with B-frames in AVI, frames that PyAV decodes have the times of others.
#
# Versions: PyAV 18.1.0 (FFmpeg 8), numpy 2.4.6, Python 3.11.
# Expected: a decoder gives frames in the order in which they are shown, so their times ascend; or there is an error.
# Happens: AVI has no times at which frames are shown, and FFmpeg takes those at which they are stored: frames 1, 2 and 3 have
#   the times 3, 4 and 2. The same file by libx264 in MP4 is right, and so is MPEG-4 (Xvid's) with B-frames in AVI.
# Why it matters: corpora of clips and many recorders' files are AVI, and video objectives ask for sparse frames by time. Who
#   takes the frame whose time it is gets another one, so that clips run to and fro, which no loss tells: just what objectives of
#   order and motion learn from. Who numbers frames as they come is right. Files that ffmpeg converts to MP4 are safe.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import av
import numpy as np

STEP = 8  # levels of gray from a frame to the next


def shown(name: str, codec: str) -> list[tuple[int, int]]:
    """Write 30 gray frames, each a step brighter than the one before; return the time and the number of ten, as they come."""
    with av.open(name, "w") as file:
        stream = file.add_stream(codec, rate=10, options={"g": "10", "bf": "2", "sc_threshold": "0", "b": "4M"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), STEP * number, np.uint8), format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(name) as file:
        frames = list(file.decode(video=0))[:10]
    return [(frame.pts, round(float(frame.to_ndarray(format="rgb24").mean()) / STEP)) for frame in frames]


for codec, name in (("libx264", "a.mp4"), ("mpeg4", "b.avi"), ("libx264", "c.avi")):
    found = shown(name, codec)
    print(f"{codec} in {name}: (time, number) {found}")
    assert [number for _, number in found] == list(range(10)), "they come in the order in which they are shown"
    times = [time for time, _ in found]
    if name == "c.avi":
        assert times == [1, 3, 4, 2, 6, 7, 5, 9, 10, 8], "the behaviour has changed"
    else:
        assert times == sorted(times), "the behaviour has changed"
PY
env/bin/python see.py
