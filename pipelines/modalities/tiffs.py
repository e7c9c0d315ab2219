"""What a TIFF says of itself, for a refusal of those that Pillow does not open, or reads wrongly without a word."""

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

COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB"}
REMEDY = "save it as PNG"
BANDS = set("RGBACMYK")  # that Pillow reads right where each lies by itself


def refusal(image: TiffImageFile) -> str | None:
    """Why not to read it; None for what Pillow reads right."""
    tags = image.tag_v2
    packed = all(tile.codec_name == "libtiff" for tile in image.tile)
    if tags.get(PLANAR_CONFIGURATION) == 2 and not _joined(image, packed):
        return f"a TIFF, {_kind(tags)}, whose colours lie apart: {REMEDY}"
    narrow = max(tags.get(BITSPERSAMPLE, (1,))) <= 8
    if 2 in tags.get(SAMPLEFORMAT, (1,)) and (narrow or (packed and tags.prefix == b"MM")):
        return f"a TIFF, {_kind(tags)}, of signed values: {REMEDY}"
    return None


def _joined(image: TiffImageFile, packed: bool) -> bool:
    """Whether Pillow puts bands that lie apart together as it should."""
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))
    if len(bits) == 1:
        return True
    if packed:
        multiplied = 1 in image.tag_v2.get(EXTRASAMPLES, ())
        return image.mode != "LAB" and not (multiplied and (max(bits) > 8 or image.mode == "La"))
    return max(bits) <= 8 and image.mode != "LAB" and {str(tile.args[0]) for tile in image.tile if tile.args} <= BANDS


def is_inverted(image: object) -> bool:
    """Whether white is 0. Pillow turns values of 8 bits round, but not of 16."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0


def unopened(data: bytes) -> str | None:
    """Of a file that Pillow does not open: what kind of TIFF it is; None for one of another format, or a broken one."""
    if not data.startswith(tuple(PREFIXES)):
        return None
    try:
        tags = ImageFileDirectory_v2(data[:16] if 43 in data[2:4] else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return f"a TIFF, {_kind(tags)}, which cannot be read: {REMEDY}"
    except Exception:  # as many as hostile bytes provoke
        return None


def _kind(tags: ImageFileDirectory_v2) -> str:
    colours, bits = tags.get(PHOTOMETRIC_INTERPRETATION), tags.get(BITSPERSAMPLE, (1,))
    return f"{COLOURS.get(int(colours or 0), f'photometric {colours}')} of {'+'.join(map(str, bits))} bits"
