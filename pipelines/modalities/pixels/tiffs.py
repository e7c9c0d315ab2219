"""Checks of TIFFs, to reject those that Pillow does not open or silently reads wrong."""

import io

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    PREFIXES,
    SAMPLEFORMAT,
    ImageFileDirectory_v2,
    TiffImageFile,
)

COLORS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB"}
REMEDY = "save it as PNG"
MOST_COLORS = 4  # of an image, with alpha; a TIFF with more bands holds measurements
BANDS = set("RGBACMYK")  # that Pillow reads correctly as separate planes


def refusal(image: TiffImageFile) -> str | None:
    """Return why an image cannot be read; None for one that Pillow reads correctly."""
    tags = image.tag_v2
    by_libtiff = all(tile.codec_name == "libtiff" for tile in image.tile)
    if tags.get(PLANAR_CONFIGURATION) == 2 and not _reads_planes(image, by_libtiff):
        return f"a TIFF, {_kind(tags)}, with colors in separate planes: {REMEDY}"
    narrow = max(tags.get(BITSPERSAMPLE, (1,))) <= 8
    if 2 in tags.get(SAMPLEFORMAT, (1,)) and (narrow or (by_libtiff and tags.prefix == b"MM")):
        return f"a TIFF, {_kind(tags)}, of signed values: {REMEDY}"
    return None


def _reads_planes(image: TiffImageFile, by_libtiff: bool) -> bool:
    """Return whether Pillow reads the separate planes of an image correctly."""
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))
    if len(bits) == 1:
        return True
    if by_libtiff:
        multiplied = 1 in image.tag_v2.get(EXTRASAMPLES, ())
        return image.mode != "LAB" and not (multiplied and (max(bits) > 8 or image.mode == "La"))
    return max(bits) <= 8 and image.mode != "LAB" and {str(tile.args[0]) for tile in image.tile if tile.args} <= BANDS


def is_inverted(image: object) -> bool:
    """Return whether white is 0, which Pillow corrects for values of 8 bits, but not of 16."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0


def unreadable(data: bytes) -> str | None:
    """Describe a TIFF that Pillow does not open; None for another format or a broken file."""
    if not data.startswith(tuple(PREFIXES)):
        return None
    try:
        tags = ImageFileDirectory_v2(data[:16] if 43 in data[2:4] else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bands = len(tags.get(BITSPERSAMPLE, (1,)))
        remedy = f"add --channels {bands} to keep all, or {REMEDY}" if bands > MOST_COLORS else REMEDY
        return f"a TIFF, {_kind(tags)}, which cannot be read: {remedy}"
    except Exception:  # Pillow raises many types on corrupt bytes
        return None


def _kind(tags: ImageFileDirectory_v2) -> str:
    photometric, bits = tags.get(PHOTOMETRIC_INTERPRETATION), tags.get(BITSPERSAMPLE, (1,))
    return f"{COLORS.get(int(photometric or 0), f'photometric {photometric}')} of {'+'.join(map(str, bits))} bits"
