#!/usr/bin/env bash
# soundfile's seek in Vorbis leaves up to 20 ms of what it read before in the next excerpt: the same part, read twice, differs.
#
# Versions: soundfile 0.14.0 with its own libsndfile 1.2.2, numpy 2.4.6, Python 3.11.
# Expected: seek(n) and read(k) give samples n to n + k of the recording, as they do for FLAC, MP3 and Opus.
# Happens: the decoder keeps the block that it had decoded last and overlaps it with the first after the jump. A tenth to a
#   fifth of the excerpts read from one open file begin with up to 1000 samples that are off by as much as the signal is loud;
#   which ones depends on what was read before. With the file opened anew for each excerpt nearly none does. No error, no warning.
# Why it matters: contrastive learning on sound reads two excerpts of a recording, FreeSound's and AudioSet's are often .ogg, and
#   keeping files open is what fast loaders do. Both views get clicks that are no part of the sound, and a run that resumes, or
#   has other workers, reads in another order and sees other samples. Reading 8192 samples (the longest block) ahead helps.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import io

import numpy as np
import soundfile

draw = np.random.default_rng(0)
rate, length = 48000, 4800
time = np.arange(10 * rate) / rate
sound = (0.3 * np.sin(2 * np.pi * (200 + 40 * time) * time) + draw.normal(0, 0.05, len(time))).astype(np.float32)
starts = draw.integers(0, len(sound) - length, 400).tolist()


def excerpt(file, start, ahead=0):
    first = max(0, start - ahead)
    file.seek(first)
    return file.read(start - first + length, dtype="float32")[start - first :]


def wrong(excerpts, whole):
    differences = [np.abs(part - whole[start : start + length]) for start, part in zip(starts, excerpts, strict=True)]
    return [difference for difference in differences if difference.max() > 1e-4]


for container, codec in (("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("OGG", "VORBIS")):
    sink = io.BytesIO()
    soundfile.write(sink, sound, rate, format=container, subtype=codec)
    data = sink.getvalue()
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        kept = wrong([excerpt(file, start) for start in starts], whole)
        ahead = wrong([excerpt(file, start, ahead=8192) for start in starts], whole)
    anew = wrong([excerpt(soundfile.SoundFile(io.BytesIO(data)), start) for start in starts], whole)
    print(f"{codec}: of 400 excerpts differ {len(kept)} from one open file, {len(anew)} from a file opened anew,", end=" ")
    print(f"{len(ahead)} read 8192 samples ahead")
    if codec == "VORBIS":
        last = max(int(np.flatnonzero(difference > 1e-4)[-1]) + 1 for difference in kept)
        print(f"  up to {max(difference.max() for difference in kept):.2f}, in the first {last} samples")
        assert len(kept) > 20, "the behaviour has changed"
        assert len(anew) < 5, "the behaviour has changed"
        assert not ahead, "the behaviour has changed"
    else:
        assert not kept, "the behaviour has changed"
PY
env/bin/python see.py
