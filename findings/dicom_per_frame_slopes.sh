#!/usr/bin/env bash
# Rescale slopes of an enhanced DICOM's frames are passed over, by pydicom's apply_rescale and by SimpleITK alike.
#
# Versions: pydicom 3.0.2, SimpleITK 2.5.7, numpy 2.4.6, Python 3.11.
# Expected: an enhanced multi-frame PET or MR object, whose slope and intercept stand in the functional groups of each frame
#   (PixelValueTransformationSequence, where the standard has them), comes out in its units, or with an error.
# Happens: apply_rescale looks at the top of the data set alone, finds nothing, and gives the stored values back; SimpleITK
#   gives the stored values, too. The same numbers in single-frame files are scaled by both.
# Why it matters: scanners write one acquisition as either kind. A corpus of both has intensities apart by the slope, a
#   hundredfold or more, and within one file frames whose slopes differ lose their order. Normalising each image hides it from
#   the curves of a sweep; probes of quantities (SUV, ADC) show noise.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

STORED, SLOPES = np.full((3, 2, 2), 100, np.uint16), (1, 2, 4)


def group(**items: object) -> Dataset:
    one = Dataset()
    for name, value in items.items():
        setattr(one, name, value)
    return one


image = group(SOPClassUID=EnhancedMRImageStorage, SOPInstanceUID="1.2.3", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.5")
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.Modality, image.NumberOfFrames = "MR", 3
image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 2, 2, 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
image.SharedFunctionalGroupsSequence = [
    group(
        PixelMeasuresSequence=[group(PixelSpacing=[1, 1], SliceThickness=1)],
        PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
]
image.PerFrameFunctionalGroupsSequence = [
    group(
        PlanePositionSequence=[group(ImagePositionPatient=[0, 0, number])],
        PixelValueTransformationSequence=[group(RescaleIntercept="0", RescaleSlope=str(slope), RescaleType="US")],
    )
    for number, slope in enumerate(SLOPES)
]
image.PixelData = STORED.tobytes()
image.save_as("enhanced.dcm", enforce_file_format=True)

read = dcmread("enhanced.dcm")
groups = [frame.PixelValueTransformationSequence[0] for frame in read.PerFrameFunctionalGroupsSequence]
true = [100 * float(frame.RescaleSlope) for frame in groups]
by_pydicom = apply_rescale(read.pixel_array, read)[:, 0, 0].tolist()
by_simpleitk = sitk.GetArrayFromImage(sitk.ReadImage("enhanced.dcm"))[:, 0, 0].tolist()
print(f"first pixel of each frame: in its unit {true}, apply_rescale {by_pydicom}, SimpleITK {by_simpleitk}")
assert true == [100, 200, 400]
assert by_pydicom == by_simpleitk == [100, 100, 100], "the behaviour has changed"
PY
env/bin/python see.py
