#!/usr/bin/env bash
# kornia's RandomResizedCrop does not average when it shrinks, and has no option to: local crops are mostly aliasing.
#
# Versions: kornia 0.9.0, torch 2.15.0 (CPU), torchvision 0.29.2, numpy 2.4.6, Python 3.11.
# Expected: crops like torchvision's of the same boxes, which is what recipes of DINO or SimCLR were tuned with. Both bilinear.
# Happens: each pixel is read from four pixels of the photograph (bicubic: 16), however many it stands for. Shrunk from 512 to 96,
#   white noise keeps 67 % of its deviation where torchvision, which averages, keeps 13 %; stripes of 2 pixels, which 96 pixels
#   cannot hold, come back as stripes of a false period at full contrast. Neither cropping_mode, resample nor align_corners
#   changes that; kornia's Resize has antialias, this has not.
# Why it matters: kornia is what moves augmentation to the GPU. The two global views of a large photograph are then sharper
#   than any camera's, with false texture that differs by scale; numbers of a recipe that moves there are not comparable, and
#   encoders are evaluated on photographs that were averaged.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check kornia==0.9.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import inspect
import warnings

import torch

warnings.filterwarnings("ignore")
import kornia.augmentation as K
from torchvision.transforms import v2

torch.manual_seed(0)
noise = torch.rand(8, 3, 512, 512)
stripes = (torch.arange(512) % 4 < 2).float().expand(1, 3, 512, 512)
whole = {"scale": (1, 1), "ratio": (1, 1)}  # crops of all of the image, so that both show the same


def kept(crop):
    return [(crop(image).std() / image.std()).item() for image in (noise, stripes)]


theirs = kept(v2.RandomResizedCrop(96, **whole))
print("share of deviation that is left of noise and of stripes of two pixels, 512 to 96 pixels")
print(f"  torchvision {theirs[0]:.2f} {theirs[1]:.2f}")
assert max(theirs) < 0.2, "the behaviour has changed"
for mode in ("slice", "resample"):
    for kind in ("bilinear", "bicubic"):
        for corners in (True, False):
            crop = K.RandomResizedCrop((96, 96), cropping_mode=mode, resample=kind, align_corners=corners, **whole)
            own = kept(crop)
            print(f"  kornia {mode}, {kind}, align_corners={corners}: {own[0]:.2f} {own[1]:.2f}")
            assert min(own) > 0.5, "the behaviour has changed"
assert "antialias" not in inspect.signature(K.RandomResizedCrop).parameters, "the behaviour has changed"
assert kept(K.Resize((96, 96), antialias=True))[0] < 0.2, "the behaviour has changed"
PY
env/bin/python see.py
