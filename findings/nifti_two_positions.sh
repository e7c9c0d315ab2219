#!/usr/bin/env bash
# A NIfTI with two transforms lies elsewhere in SimpleITK than in nibabel: a mask that nibabel puts on its scan misses it altogether.
#
# Versions: nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6, Python 3.11.
# Expected: one place in space for a voxel. The format allows two transforms, of the scanner (qform) and of an alignment (sform), each
#   with a code of what it leads to; two readers take the same one, or say that there is another.
# Happens: nibabel takes the sform whenever its code is not 0. SimpleITK takes it where its code is 1 (scanner) or the qform's code is 0,
#   and the qform otherwise. So scans whose sform was set by a registration (2, aligned; 3, Talairach; 4, MNI) have two places.
#   Nifti1Image(mask, scan.affine), the common way to write a mask, stores that sform alone: nibabel gives both files one affine, and
#   SimpleITK, which takes the mask's sform and the scan's qform, resamples a mask of 1000 voxels to one of 0. No warning.
# Why it matters: SPM writes such scans when it aligns them, public sets of brains hold them, and loaders are built on either library.
#   Volumes aligned for nibabel are in the scanner's pose for SimpleITK, cut at other places, and turned by degrees; dense probes train
#   on empty masks of just the sites that aligned their scans. Write both transforms of masks and scans alike, or compare them first.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nibabel==5.4.2 simpleitk==2.5.7 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import nibabel
import numpy as np
import SimpleITK

turn = np.deg2rad(10)
aligned = np.array([[2.0, 0, 0, -40], [0, 2, 0, -40], [0, 0, 2, -40], [0, 0, 0, 1]])
scanner = np.array([
    [2.0, 0, 0, -30], [0, 2 * np.cos(turn), -2 * np.sin(turn), 25], [0, 2 * np.sin(turn), 2 * np.cos(turn), 60], [0, 0, 0, 1],
])  # fmt: skip
corners = [(0, 0, 0), (39, 0, 0), (0, 39, 0), (0, 0, 39)]
mask = np.zeros((40, 40, 40), np.uint8)
mask[15:25, 15:25, 15:25] = 1


def by_simpleitk(name: str) -> np.ndarray:
    """-> the corners' places, right to left and back to front turned round as nibabel has them"""
    image = SimpleITK.ReadImage(name)
    return np.array([image.TransformIndexToPhysicalPoint(corner) for corner in corners]) * [-1, -1, 1]


def by_nibabel(name: str) -> np.ndarray:
    return nibabel.affines.apply_affine(nibabel.load(name).affine, corners)


def kept(scan: str) -> int:
    """Return how many voxels a mask written with nibabel's affine of the scan has on the scan's grid in SimpleITK."""
    nibabel.save(nibabel.Nifti1Image(mask, nibabel.load(scan).affine), "mask.nii")
    assert np.allclose(nibabel.load("mask.nii").affine, nibabel.load(scan).affine, atol=1e-4)
    images = (SimpleITK.ReadImage(name) for name in ("mask.nii", scan))
    moved = SimpleITK.Resample(*images, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    return int(SimpleITK.GetArrayFromImage(moved).sum())


for codes in ((1, 1), (2, 1), (0, 4), (1, 2), (1, 3), (1, 4), (2, 4), (2, 2)):
    scan = nibabel.Nifti1Image(np.ones((40, 40, 40), np.int16), None)
    scan.set_qform(scanner, codes[0])
    scan.set_sform(aligned, codes[1])
    nibabel.save(scan, "scan.nii")
    apart = np.abs(by_simpleitk("scan.nii") - by_nibabel("scan.nii")).max()
    assert np.allclose(by_nibabel("scan.nii"), nibabel.affines.apply_affine(aligned, corners))
    number = kept("scan.nii")
    print(f"codes of qform and sform {codes}: up to {apart:5.1f} mm apart; of a mask of {mask.sum()} voxels SimpleITK keeps {number}")
    if codes[1] == 1 or codes[0] == 0:
        assert apart < 1e-3 and number == mask.sum(), "the behaviour has changed"
    else:
        assert np.allclose(by_simpleitk("scan.nii"), nibabel.affines.apply_affine(scanner, corners), atol=1e-3) and number == 0, (
            "the behaviour has changed"
        )
PY
env/bin/python see.py
