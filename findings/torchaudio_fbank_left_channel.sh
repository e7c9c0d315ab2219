#!/usr/bin/env bash
# torchaudio's kaldi.fbank of stereo is that of its left channel, and of a batch that of its first recording: no error, no mean.
#
# Versions: torchaudio 2.11.1, torch 2.15.0 (CPU), numpy 2.4.6, Python 3.11.
# Expected: its default, channel=-1, "expects mono", so two channels are refused; or they are averaged, as loaders for mono do.
# Happens: row 0 is taken, whatever the other rows hold and however many there are; MFCCs and spectrograms of the module alike.
#   A sound on the right alone has the features of silence, and a batch of 32 recordings gives those of one, without its axis.
# Why it matters: AST, Audio-MAE and what follows their loaders hand it AudioSet's recordings as read, mostly stereo. Whatever
#   lies on one side is half lost, and a twin in librosa, or after a mean of channels, has other inputs and other numbers.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torchaudio==2.11.1 torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import torch
from torchaudio.compliance import kaldi

RATE = 16_000
time = torch.arange(RATE) / RATE
left, right = (torch.sin(2 * torch.pi * pitch * time) for pitch in (440, 2000))
for name in ("fbank", "mfcc", "spectrogram"):
    compute = getattr(kaldi, name)
    alone = [compute(channel[None]) for channel in (left, right)]
    for others in ([right], [0 * right], [right] * 31):
        both = compute(torch.stack([left, *others]))
        assert both.equal(alone[0]), "the behaviour has changed"
    assert not alone[0].equal(alone[1])
    print(f"{name} of 2 and of 32 rows: {tuple(both.shape)}, equal to that of the first row")
silent = kaldi.fbank(torch.stack([0 * right, right]))
print(f"a tone on the right: largest value {silent.max():.1f}, of silence {kaldi.fbank(0 * right[None]).max():.1f}, "
      f"of the mean {kaldi.fbank((right / 2)[None]).max():.1f}")
assert silent.equal(kaldi.fbank(0 * right[None])), "the behaviour has changed"
PY
env/bin/python see.py
