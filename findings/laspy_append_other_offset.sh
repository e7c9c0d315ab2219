#!/usr/bin/env bash
# laspy appends points of a LAS file with another offset or scale as they are stored: x of 1001 m becomes 10 m.
#
# Versions: laspy 2.7.0, numpy 2.4.6, Python 3.11.
# Expected: appending points read from one tile to another keeps their coordinates, as writing them to a new file with the
#   other tile's header does (laspy rescales there), or is refused.
# Happens: laspy.open(path, mode="a").append_points(points) stores the integers of the source under the header of the target.
#   Points carry their scales and offsets with them, and they are not looked at. No warning.
# Why it matters: tiles of one survey have offsets of their own, so merging them for pre-training is just this. All tiles fall
#   on one another near the first tile's origin: a dense cloud that trains without complaint, with a geometry that never was.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check laspy==2.7.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import laspy
import numpy as np


def tile(path: str, x: list[float], offset: float, scale: float) -> str:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = [offset] * 3, [scale] * 3
    cloud = laspy.LasData(header)
    cloud.x = cloud.y = cloud.z = np.array(x)
    cloud.write(path)
    return path


first, second = tile("first.las", [1, 2, 3], 0, 0.01), tile("second.las", [1001, 1002, 1003], 1000, 0.001)
with laspy.open("written.las", mode="w", header=laspy.read(first).header) as sink:
    sink.write_points(laspy.read(second).points)
with laspy.open(first, mode="a") as sink:
    sink.append_points(laspy.read(second).points)
source, written, appended = (np.array(laspy.read(path).x) for path in (second, "written.las", first))
print(f"source {source}, written {written}, appended {appended[3:]}")
assert np.allclose(written, source)
assert np.allclose(appended, [1, 2, 3, 10, 20, 30]), "the behaviour has changed"
PY
env/bin/python see.py
