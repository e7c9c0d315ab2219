#!/usr/bin/env bash
# SimpleITK reads a DICOM series in the pixel type of its first slice: rescale slopes of other slices are cut to integers.
#
# Versions: SimpleITK 2.5.7, pydicom 3.0.2 (writes the files), numpy 2.4.6, Python 3.11.
# Expected: a series whose slices have rescale slopes of their own, as PET series do, is read as floats, each slice scaled.
# Happens: ImageSeriesReader asks the first file for the type. A first slice with slope 1 makes the volume uint16, and the
#   following slices are scaled and cut: with slope 0.001, everything below 1000 to 0. The same files in reverse order,
#   and each file by itself, are right. No warning.
# Why it matters: PET scanners choose the slope per slice from its maximum. Scans are read whole or as zeros depending on one
#   slice at the edge; an SSL sweep on such volumes trains on blank slices, and whether it does depends on the scanner.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage

STORED = np.array([[101, 250], [3000, 7]], np.uint16)


def slice_file(number: int, slope: float) -> str:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = PositronEmissionTomographyImageStorage
    one.SOPInstanceUID, one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.3.{number}", "1.2.4", "1.2.5"
    one.Modality, one.InstanceNumber = "PT", number
    one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [1, 1], 1
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 2, 2, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.RescaleSlope, one.RescaleIntercept, one.RescaleType = str(slope), "0", "BQML"
    one.PixelData = STORED.tobytes()
    one.save_as(f"{number}.dcm", enforce_file_format=True)
    return f"{number}.dcm"


slopes = (1, 0.5, 0.001)
names = [slice_file(number, slope) for number, slope in enumerate(slopes, start=1)]
true = [STORED * slope for slope in slopes]
singly = [sitk.GetArrayFromImage(sitk.ReadImage(name)).squeeze() for name in names]
forward = sitk.GetArrayFromImage(sitk.ReadImage(names))
backward = sitk.GetArrayFromImage(sitk.ReadImage(names[::-1]))[::-1]
for kind, volume in (("singly", singly), ("first slice first", forward), ("last slice first", backward)):
    print(f"{kind}: {volume[0].dtype}, {[one.ravel().tolist() for one in volume]}")
assert np.allclose(singly, true) and np.allclose(backward, true)
assert forward.dtype == np.uint16 and (forward[2] == true[2].astype(int)).all(), "the behaviour has changed"
PY
env/bin/python see.py
