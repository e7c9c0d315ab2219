#!/usr/bin/env bash
# JPEGs of 4:2:2, 4:4:0 and 4:1:1 decoded at an eighth lose half or more of the colour resolution that 4:4:4 keeps.
#
# Versions: simplejpeg 1.9.0 and pillow 13.0.0 (both with libjpeg-turbo 3), numpy 2.4.6, Python 3.11.
# Expected: decoding at 1/8 (Pillow's draft, simplejpeg's min_width) gives about what decoding whole and shrinking by 8 gives.
#   The chroma of a 4:2:2 file has four times the width that a picture of 1/8 has, so nothing need be lost.
# Happens: the decoder scales luma and chroma alike, except where chroma is halved in both directions (4:2:0). Chroma that is
#   halved or quartered in one direction is reduced to an eighth of its own size, and stretched. Colour patches of 8 pixels,
#   one pixel after reduction, are off by 26 grey levels on average in 4:2:2 and 4:4:0, 42 in 4:1:1, 7 in 4:2:0, 0 in 4:4:4.
# Why it matters: decoding at a fraction is the common way to feed small crops fast. Cameras write 4:2:2, and 4:4:0 when turned
#   losslessly, so colour sharpness depends on make and orientation: a shortcut for contrastive and colour objectives. It also
#   depends on the crop size of the arm, for that decides the fraction.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check simplejpeg==1.9.0 pillow==13.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import io

import numpy as np
import simplejpeg
from PIL import Image

patches = np.kron(np.random.default_rng(0).integers(0, 2, (64, 64)), np.ones((8, 8), int))
picture = np.stack([60 + 150 * patches, np.full_like(patches, 120), 200 - 150 * patches], axis=-1).astype(np.uint8)
errors = {}
for kind in ("444", "420", "422", "440", "411"):
    data = simplejpeg.encode_jpeg(picture, quality=95, colorsubsampling=kind)
    right = np.asarray(Image.fromarray(simplejpeg.decode_jpeg(data)).reduce(8)).astype(int)
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (64, 64))
    reduced = simplejpeg.decode_jpeg(data, min_width=64, min_height=64), np.asarray(image)
    assert all(one.shape == right.shape for one in reduced)
    errors[kind] = [abs(one.astype(int) - right).mean().item() for one in reduced]
    print(f"{kind}: mean difference to decoding whole: simplejpeg {errors[kind][0]:.1f}, Pillow's draft {errors[kind][1]:.1f}")
assert max(errors["444"]) < 1 and max(errors["420"]) < 10
assert all(min(errors[kind]) > 20 for kind in ("422", "440", "411")), "the behaviour has changed"
PY
env/bin/python see.py
