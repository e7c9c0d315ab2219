"""Augmentations of papers, as the views that methods ask for."""

from dataclasses import replace
from typing import Literal, Protocol

from selfsup.masks import BlockMask, MaskRule
from selfsup.views import Crop


def simclr(*, crop_min: float, strength: float = 1.0, blur: float = 0.5) -> Crop:
    """Return SimCLR's crop (arXiv 2002.05709), appendix A."""
    return Crop(
        scale=(crop_min, 1.0),
        jitter=0.8,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        gray=0.2,
        blur=blur,
    )


def moco(*, crop_min: float = 0.2, blur: float = 0.5) -> Crop:
    """Return MoCo v2's crop (arXiv 2003.04297), section 3, also SimSiam's: SimCLR's at half the strength, less in hue.

    Resized bilinearly, torchvision's default, in the authors' code.
    """
    strong = simclr(crop_min=crop_min, blur=blur)
    return replace(strong, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, resample="bilinear")


def instdisc(*, crop_min: float, strength: float = 0.4, blur: float = 0.0) -> Crop:
    """Return instance discrimination's crop (arXiv 1805.01978), also MoCo v1's and SeLa's: gray for some, then jitter.

    Resized bilinearly, torchvision's default, in the authors' code.
    """
    plain = Crop(scale=(crop_min, 1.0), resample="bilinear", gray=0.2, gray_first=True, blur=blur)
    return replace(plain, jitter=1.0, brightness=strength, contrast=strength, saturation=strength, hue=strength)


def byol(
    *, crop_min: float = 0.08, blur: float = 1.0, resample: Literal["bicubic", "bilinear"] = "bicubic"
) -> tuple[Crop, Crop]:
    """Return BYOL's two crops (arXiv 2006.07733), table 6, also of MoCo v3, Barlow Twins and DINO's large crops.

    blur: the share of first views that are blurred; of second views a tenth of it.
    """
    first = Crop(
        scale=(crop_min, 1.0),
        resample=resample,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        gray=0.2,
        blur=blur,
    )
    return first, replace(first, blur=0.1 * blur, solarize=0.2)


def vicreg(*, crop_min: float = 0.08, blur: float = 0.5) -> Crop:
    """Return VICReg's crop (arXiv 2105.04906), appendix C.1: the mean of BYOL's two; the authors' code has both."""
    return replace(byol(crop_min=crop_min)[0], blur=blur, solarize=0.1)


class MaskedCrop(Protocol):
    """The knobs of a crop with rectangles masked: shares of the image, patches of the smallest, strength of jitter."""

    @property
    def mask_ratio(self) -> float: ...
    @property
    def mask_block(self) -> int: ...
    @property
    def strength(self) -> float: ...
    @property
    def crop_min(self) -> float: ...


def beit(knobs: MaskedCrop) -> Crop:
    """Return BEiT's crop (arXiv 2106.08254), section 3, also data2vec's, jittered as in the authors' code."""
    return Crop(
        scale=(knobs.crop_min, 1.0),
        jitter=1.0,
        brightness=knobs.strength,
        contrast=knobs.strength,
        saturation=knobs.strength,
        mask=BlockMask(knobs.mask_ratio, knobs.mask_ratio, smallest=knobs.mask_block),
    )


class MultiCrop(Protocol):
    """The knobs of small crops beside large ones: sizes in pixels a side, least and most as shares of the image."""

    @property
    def crop_min(self) -> float: ...
    @property
    def local_crops(self) -> int: ...
    @property
    def local_size(self) -> int: ...
    @property
    def local_min(self) -> float: ...
    @property
    def local_max(self) -> float: ...
    @property
    def blur(self) -> float: ...


class Jittered(MultiCrop, Protocol):
    @property
    def strength(self) -> float: ...


class Uniform(MultiCrop, Protocol):
    """Likewise, of any number of large crops; the share of crops that are solarized."""

    @property
    def large_crops(self) -> int: ...
    @property
    def solarize(self) -> float: ...


def swav(knobs: Jittered) -> tuple[Crop, ...]:
    """Return SwAV's multi-crop (arXiv 2006.09882), section 3.2 and appendix A.2: two large crops, then small ones.

    Resized bilinearly, torchvision's default, in the authors' code.
    """
    plain = simclr(crop_min=knobs.crop_min, strength=knobs.strength, blur=knobs.blur)
    large = replace(plain, resample="bilinear")
    return (large, large, *_small(large, knobs))


def dino(knobs: MultiCrop, mask: MaskRule | None = None) -> tuple[Crop, ...]:
    """Return DINO's multi-crop (arXiv 2104.14294), section 3.1, also iBOT's and DINOv2's: BYOL's two, then small crops.

    Small crops are blurred half as often as the first. mask: of large crops.
    """
    first, second = byol(crop_min=knobs.crop_min, blur=knobs.blur)
    small = _small(replace(first, blur=0.5 * knobs.blur), knobs)
    return (replace(first, mask=mask), replace(second, mask=mask), *small)


def inverted(crops: tuple[Crop, ...]) -> tuple[Crop, ...]:
    """Return crops, each blurred in one less its share: the code of DINOv2 (arXiv 2304.07193) and of DINOv3."""
    return tuple(replace(crop, blur=1 - crop.blur) for crop in crops)


def lejepa(knobs: Uniform) -> tuple[Crop, ...]:
    """Return LeJEPA's multi-crop (arXiv 2511.08544), of its authors' README, also VISReg's: all are changed alike."""
    large = replace(byol(crop_min=knobs.crop_min, blur=knobs.blur)[0], solarize=knobs.solarize)
    return (*[large] * knobs.large_crops, *_small(large, knobs))


def _small(large: Crop, knobs: MultiCrop) -> list[Crop]:
    return [replace(large, size=knobs.local_size, scale=(knobs.local_min, knobs.local_max))] * knobs.local_crops
