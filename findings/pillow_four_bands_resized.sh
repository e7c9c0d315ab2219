#!/usr/bin/env bash
# Pillow resizes four bands as colours under alpha: where the fourth is dark, the other three are lost or wrong.
#
# Versions: pillow 13.0.0, torchvision 0.29.2 (torch 2.15.0), numpy 2.4.6, Python 3.11.
# Expected: resizing a picture of four bands that are flat gives the same four values: each band is filtered by itself, as
#   torchvision does with a tensor of four channels.
# Happens: an image of mode RGBA is multiplied by its fourth band at 8 bits, resized, and divided again. Flat bands of 200, 100,
#   50 come back as 191, 127, 63 where the fourth is 4, as 255, 0, 0 where it is 1, and as zeros where it is 0. Mode CMYK, which
#   holds four bands too, is resized band by band. torchvision's Resize of a PIL image does as Pillow, of a tensor it does not.
# Why it matters: red, green, blue and near infrared of satellites, and four stains of a microscope, are stored as RGBA, since no
#   other PNG has four bands. Near infrared is darkest over water, a stain is dark almost everywhere: there every random resized
#   crop has three wrong bands, the same transform on tensors has not, and a sweep that moves its augmentation from PIL to
#   tensors compares two data sets.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 torch==2.15.0 torchvision==0.29.2 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import resize

found = {}
for fourth in (255, 4, 1, 0):
    bands = np.full((8, 8, 4), (200, 100, 50, fourth), np.uint8)
    image = Image.fromarray(bands)
    assert image.mode == "RGBA"
    pillow = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR))[1, 1].tolist()
    by_torchvision = np.asarray(resize(image, [4, 4]))[1, 1].tolist()
    tensor = resize(torch.from_numpy(bands).permute(2, 0, 1), [4, 4], antialias=True)[:, 1, 1].tolist()
    cmyk = np.asarray(Image.frombytes("CMYK", (8, 8), bands.tobytes()).resize((4, 4), Image.Resampling.BILINEAR))[1, 1].tolist()
    print(f"stored 200 100 50 {fourth}: as RGBA {pillow}, torchvision of PIL {by_torchvision}, of a tensor {tensor}, as CMYK {cmyk}")
    assert tensor == cmyk == [200, 100, 50, fourth]
    assert by_torchvision == pillow
    found[fourth] = pillow
assert found == {255: [200, 100, 50, 255], 4: [191, 127, 63, 4], 1: [255, 0, 0, 1], 0: [0, 0, 0, 0]}, "the behaviour has changed"
PY
env/bin/python see.py
