"""Every view of every objective, beside the authors' code or, where there is none, the paper."""

from dataclasses import replace
from fractions import Fraction

import pytest

from selfsup.method import load, names
from selfsup.views import Beside, Center, Crop

# Defaults of each method, a line a kind of view: how many of them, pixels a side, area as a share of the image, width
# over height, share flipped, filter; share jittered, in brightness, contrast, saturation and hue; shares that are gray,
# blurred, solarized.
TABLE = """
aim          1    -  0.4   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
amdim        2    -  0.3   1     0.7 1.4  0    bicubic   0.8  0.4 0.4 0.4 0.1  0.25  0    0
audiovisual_mae 1 -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
avid         1    -  0.08  1     3/4 4/3  0.5  bilinear  1    0.4 0.4 0.4 0.2  0    0    0
barlow       1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
barlow       1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
beit         1    -  0.08  1     3/4 4/3  0.5  bicubic   1    0.4 0.4 0.4 0    0     0    0
byol         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
byol         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
cae          1    -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
clip         1    -  0.9   1     3/4 4/3  0    bicubic   0    0   0   0   0    0     0    0
capi         1    -  0.6   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
colorization 1    -  0.47  1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
context_encoder 1 -  0.2   1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
cubic_puzzles 1  -  0.6   1     1   1    0.5  bilinear  0    0   0   0   0    0     0    0
croco        1    -  0.08  1     3/4 4/3  0    bicubic   1    0.4 0.4 0.4 0    0     0    0
data2vec     1    -  0.08  1     3/4 4/3  0.5  bicubic   1    0.4 0.4 0.4 0    0     0    0
clusterfit   1    -  0.08  1     3/4 4/3  0.5  bilinear  1    0.4 0.4 0.4 0.2  0     0    0
deepcluster  2    -  0.14  1     3/4 4/3  0.5  bilinear  0.8  0.8 0.8 0.8 0.2  0.2   0.5  0
deepcluster  6   96  0.05  0.14  3/4 4/3  0.5  bilinear  0.8  0.8 0.8 0.8 0.2  0.2   0.5  0
denoising    1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
densecl      2    -  0.2   1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
depthcontrast 2   -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
dino         1    -  0.25  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
dino         1    -  0.25  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
dino        10   96  0.05  0.25  3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
dinov2       1    -  0.32  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
dinov2       1    -  0.32  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
dinov2       8   96  0.05  0.32  3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
dinov3       1    -  0.32  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
dinov3       1    -  0.32  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
dinov3       8   96  0.05  0.32  3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
droppos      1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
essl         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
essl         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
essl         1   96  0.05  0.14  3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.2 0.1  0.2   0.1  0
feature_distillation 1 - 0.2 1   3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
flexpredict  1    -  0.3   1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0.2   0.5  0
gdt          2    -  0.4   1     1   1    0.5  bilinear  1    0.4 0.4 0.4 0    0     0    0
gmml         2    -  0.05  1     3/4 4/3  0.5  bicubic   0.3  0.1 0.1 0.1 0.01 0     0.1  0
ibot         1    -  0.25  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
ibot         1    -  0.25  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
ibot        10   96  0.05  0.25  3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
ijepa        1    -  0.3   1     3/4 4/3  0    bilinear  0    0   0   0   0    0     0    0
imagebind    1    -  0.9   1     3/4 4/3  0    bicubic   0    0   0   0   0    0     0    0
jigsaw       1  240  0.6   1     1   1    0.5  bilinear  0    0   0   0   0    0.3   0    0
lejepa       2    -  0.3   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0.2
lejepa       6   96  0.05  0.3   3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0.2
m3ae         1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
macrl        1    -  0.2   1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
macrl        1    -  0.2   1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
mae          1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
mage         1    -  0.2   1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
multimae     1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
maskfeat     1    -  0.5   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
mavil        1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
mixedae      1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
moco         2    -  0.2   1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
mocov3       1    -  0.08  1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.2 0.1  0.2   1    0
mocov3       1    -  0.08  1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
msn          2    -  0.3   1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
msn         10   96  0.05  0.3   3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
nepa         1    -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
nnclr        1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
nnclr        1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
obow         2  160  0.08  0.6   3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
obow         5   96  0.084 0.14  3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0    0
omnivore     1    -  0.08  1     3/4 4/3  0.5  bicubic   1    0.4 0.4 0.4 0.4  0     0    0
pirl         1    -  0.08  1     3/4 4/3  0.5  bilinear  1    0.4 0.4 0.4 0.2  0.2   0    0
pirl         1  255  0.6   1     3/4 4/3  0    bilinear  1    0.4 0.4 0.4 0.2  0.2   0    0
pixpro       1    -  0.08  1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.2 0.1  0.2   1    0
pixpro       1    -  0.08  1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
pointcontrast 2   -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
random_walk  1    -  0.8   0.95  0.7 1.3  0    bilinear  0    0   0   0   0    0     0    0
relative_position 1 432 0.41 1   1   1    0    bilinear  0    0   0   0   0    0     0    0
ropim        1    -  0.67  1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
salt         1    -  0.3   1     3/4 4/3  0    bilinear  0    0   0   0   0    0     0    0
rotation     1    -  0.08  1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
sela         1    -  0.08  1     3/4 4/3  0.5  bilinear  1    0.4 0.4 0.4 0.4  0.2   0    0
selfie       1  224  0.2   1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
semaim       1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
siglip       1    -  0.9   1     3/4 4/3  0    bicubic   0    0   0   0   0    0     0    0
slip         1    -  0.5   1     3/4 4/3  0    bilinear  0    0   0   0   0    0     0    0
slip         2    -  0.08  1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
simclr       2    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.8 0.8 0.8 0.2  0.2   0.5  0
simdino      1    -  0.4   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
simdino      1    -  0.4   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
simdino     10   96  0.05  0.4   3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
simdinov2    1    -  0.4   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
simdinov2    1    -  0.4   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
simdinov2   10   96  0.05  0.4   3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0
simmim       1    -  0.67  1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
simsiam      2    -  0.2   1     3/4 4/3  0.5  bilinear  0.8  0.4 0.4 0.4 0.1  0.2   0.5  0
split_brain  1    -  0.47  1     3/4 4/3  0.5  bilinear  0    0   0   0   0    0     0    0
supervised   1    -  0.08  1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
swav         2    -  0.14  1     3/4 4/3  0.5  bilinear  0.8  0.8 0.8 0.8 0.2  0.2   0.5  0
swav         6   96  0.05  0.14  3/4 4/3  0.5  bilinear  0.8  0.8 0.8 0.8 0.2  0.2   0.5  0
tico         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   1    0
tico         1    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.1  0.2
uniter       1    -  0.9   1     3/4 4/3  0    bicubic   0    0   0   0   0    0     0    0
vicreg       2    -  0.08  1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0.1
visreg       4    -  0.3   1     3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0.1
visreg       6   96  0.05  0.3   3/4 4/3  0.5  bicubic   0.8  0.4 0.4 0.2 0.1  0.2   0.5  0.1
vqvae        1    -  0.2   1     3/4 4/3  0.5  bicubic   0    0   0   0   0    0     0    0
"""
GRAY_FIRST = {"sela"}  # before the jitter
CENTRAL = {"obow": [Center(share=0.875, flip=0.5, rounded=True, resample="bilinear")]}  # before those of the table
SHARE = {"share": 224 / 256}
UNUSUAL = {  # of a view, by its number: fields that no other view has
    "pirl": {1: {"cells": 3}},
    "croco": {0: SHARE},
    "audiovisual_mae": {0: SHARE},
}
TWICE = {"depthcontrast"}  # that see what lies beside in two views
FOLLOWED = {"audiovisual_mae", "avid", "imagebind", "mavil", "multimae"}  # by what lies beside, in time and box
ROWS = [line.split() for line in TABLE.strip().splitlines()]


def crop(cells: list[str]) -> Crop:
    size, *numbers = (None if cell == "-" else float(Fraction(cell)) for cell in (*cells[:6], *cells[7:]))
    area, aspect, [flip, jitter, *strengths, gray, blur, solarize] = numbers[:2], numbers[2:4], numbers[4:]
    brightness, contrast, saturation, hue = strengths
    return Crop(
        size=size and int(size),
        scale=tuple(area),
        ratio=tuple(aspect),
        flip=flip,
        resample=cells[6],
        jitter=jitter,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        gray=gray,
        blur=blur,
        solarize=solarize,
    )


@pytest.mark.parametrize("name", names())
def test_views_are_those_of_the_authors(name: str) -> None:
    rows = [cells for row, count, *cells in ROWS if row == name for _ in range(int(count))]
    expected = [replace(crop(cells), gray_first=name in GRAY_FIRST) for cells in rows]
    for number, fields in UNUSUAL.get(name, {}).items():
        expected[number] = replace(expected[number], **fields)
    kind = load(name)
    asked, of = kind.views(kind.Hyper()), 0 if name in FOLLOWED else None
    others = [Beside(field=field, of=of) for field in asked.beside for _ in range(1 + (name in TWICE))]
    if name == "croco":  # the second view is another one of the first kind, without a mask
        others = [Beside(field="right", crop=expected[0])]
    if name == "gdt":  # the sound of each clip
        others = [Beside(field="audio", of=number) for number in range(2)]
    if name == "omnivore":  # a sample is a clip or an image, whose depth is cut likewise
        others = [Beside(field="depth", of=0), Beside(field="video")]
    views = [replace(view, mask=None) for view in asked.specs]
    assert views == [*CENTRAL.get(name, []), *expected, *others]
