#!/usr/bin/env bash
# Decord gives other frames than are asked for by number, of MPEG-4 with B-frames and of H.264 in AVI.
#
# Versions: decord 0.6.0, PyAV 18.1.0 to write the files, numpy 2.4.6, Python 3.11.
# Expected: get_batch([3, 7, 12, 25]) are frames 3, 7, 12 and 25 of those that reading in turn gives; decord promises exact ones.
# Happens: of MPEG-4 (Xvid's, DivX's) with two B-frames they are 2, 0, 2 and 27 in AVI, and 5, 9, 14 and 27 in MP4; of H.264 in AVI,
#   without any B-frames, 3, 7, 2 and 5. There is no error, and reading in turn is right. H.264 in MP4 and Matroska is right.
# Why it matters: decord is what the public code of most masked video objectives reads clips with, by sparse numbers, and UCF-101,
#   HMDB-51 and the like are AVI of such codecs. Clips then repeat and skip frames, or come from elsewhere in the video;
#   evaluations that read every frame do not, so pre-training and testing see different motions, and no curve tells.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check decord==0.6.0 av==18.1.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import av
import numpy as np
from decord import VideoReader

STEP, ASKED = 8, [3, 7, 12, 25]  # levels of gray from a frame to the next


def written(name: str, codec: str, b_frames: str) -> str:
    """Write 30 gray frames, each a step brighter than the one before."""
    with av.open(name, "w") as file:
        stream = file.add_stream(codec, rate=10, options={"g": "10", "bf": b_frames, "sc_threshold": "0", "b": "4M"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), STEP * number, np.uint8), format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return name


def number(pixels: np.ndarray) -> int:
    return round(float(pixels.mean()) / STEP)


for codec, b_frames, name, expected in (
    ("libx264", "2", "right.mp4", ASKED),
    ("libx264", "2", "right.mkv", ASKED),
    ("mpeg4", "0", "right.avi", ASKED),
    ("mpeg4", "2", "wrong.avi", [2, 0, 2, 27]),
    ("mpeg4", "2", "wrong.mp4", [5, 9, 14, 27]),
    ("libx264", "0", "wrong_too.avi", [3, 7, 2, 5]),
):
    written(name, codec, b_frames)
    assert [number(frame.asnumpy()) for frame in VideoReader(name)] == list(range(30)), "reading in turn is right"
    found = [number(pixels) for pixels in VideoReader(name).get_batch(ASKED).asnumpy()]
    print(f"{codec} with {b_frames} B-frames in {name}: {found} of {ASKED}")
    assert found == expected, "the behaviour has changed"
PY
env/bin/python see.py
