#!/usr/bin/env bash
# timm's RandAugment of MAE's and DeiT's recipes, rand-m9-mstd0.5-inc1, raises on 3 images in 2000 with Pillow 13; before, they were black.
#
# Versions: timm 1.0.31, Pillow 13.0.0 and 12.2.0, torch 2.15.0, torchvision 0.29.2, numpy 2.4.6, Python 3.11.
# Expected: the string that MAE, DeiT and BEiT fine-tune with works on every RGB image.
# Happens: with "inc1" Posterize keeps fewer bits as the magnitude grows, 4 - 4 * magnitude / 10. Magnitudes are drawn around 9
#   with a deviation of 0.5 and capped at 10, where no bit is left. Pillow 13 refuses that with a ValueError; 12.2 and earlier
#   return a black image.
# Why it matters: after an upgrade of Pillow, fine-tuning on ImageNet ends within minutes with an error of a loader's process. And
#   numbers from before are of another augmentation, in which 1.5 images of 1000 were black. We cap the magnitude below 10.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check timm==1.0.31 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 pillow==13.0.0 2>/dev/null
env/bin/pip install -q --disable-pip-version-check --target older pillow==12.2.0 2>/dev/null
cat > see.py <<'PY'
import random
import sys

import numpy as np
import PIL
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform

IMAGES = 10_000
random.seed(0)
np.random.seed(0)
image = Image.fromarray(np.random.default_rng(0).integers(64, 256, (32, 32, 3), dtype=np.uint8))
augment = rand_augment_transform("rand-m9-mstd0.5-inc1", {"translate_const": 4, "img_mean": (124, 116, 104)})
refused = 0
for _ in range(IMAGES):
    try:
        augment(image)
    except ValueError as error:
        refused += 1
        assert "bits must be" in str(error), error
print(f"Pillow {PIL.__version__}: {refused} of {IMAGES} images raise")
if sys.argv[1] == "raises":
    assert 5 <= refused <= 40, "the behaviour has changed"
else:
    left = np.asarray(ImageOps.posterize(image, 0))
    print(f"Pillow {PIL.__version__}: the largest value where no bit is kept: {left.max()}")
    assert refused == left.max() == 0, "the behaviour has changed"
PY
env/bin/python see.py raises
PYTHONPATH=older env/bin/python see.py black
