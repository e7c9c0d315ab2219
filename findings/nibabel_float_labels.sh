#!/usr/bin/env bash
# nibabel stores whole numbers, as floats, under a scan's int16 header with a slope: labels 1, 2, 3 come back as 0.99..., and become 0, 1, 2.
#
# Versions: nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6, Python 3.11.
# Expected: labels 0, 1, 2, 3 in a float array, given the header of the scan that they belong to, are in range of its int16 and
#   are stored as they are. An array of integers is.
# Happens: any float array is stretched over the whole range of the header's integers; slope and intercept in the file undo that
#   up to a rounding error. get_fdata, and SimpleITK too, give 0.99999 for 1: astype(int) makes every label one less, == 1 finds
#   none. With labels 0, 1, 2, 4 the errors go upwards and downwards, so that some classes are right and one is not.
# Why it matters: predictions and resampled masks are floats, and Nifti1Image(array, scan.affine, scan.header) is how they are
#   written. Segmentation probes of a frozen encoder then train on the class below, or on background alone, and Dice tells
#   nothing of why. set_data_dtype(numpy.uint8) leaves 1.00000002; astype(numpy.uint8) of the array helps, or numpy.rint on reading.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check nibabel==5.4.2 simpleitk==2.5.7 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import nibabel
import numpy as np
import SimpleITK

scan = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))


def kept(labels, kind, stored=None):
    mask = np.resize(np.array(labels), (8, 8, 8)).astype(kind)
    image = nibabel.Nifti1Image(mask, scan.affine, scan.header)
    if stored:
        image.set_data_dtype(stored)
    nibabel.save(image, "mask.nii.gz")
    read = nibabel.load("mask.nii.gz").get_fdata()
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("mask.nii.gz")).transpose(2, 1, 0)
    assert (np.rint(read) == mask).all(), "the behaviour has changed"
    assert np.abs(other - read).max() < 1e-3
    values = [read[mask == label][0] for label in labels]
    print(f"{labels} as {kind.__name__}, stored as {image.get_data_dtype()}: {[round(float(value), 10) for value in values]}")
    print(f"  astype(int): {[int(value) for value in values]}; voxels == 1: {(read == 1).sum()} of {(mask == 1).sum()}")
    return [int(value) for value in values], (read == 1).sum()


assert kept([0, 1, 2, 3], np.int64)[0] == [0, 1, 2, 3]
assert kept([0, 1, 2, 3], np.float32) == ([0, 0, 1, 2], 0), "the behaviour has changed"
assert kept([0, 1, 2, 4], np.float32) == ([0, 1, 2, 3], 0), "the behaviour has changed"
assert kept([0, 1, 2, 3], np.float32, np.uint8) == ([0, 1, 2, 3], 0), "the behaviour has changed"
PY
env/bin/python see.py
