"""Images of any number of channels, of 8 or 16 bits, in whatever format they come."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selfsup.knob import Knobs
from selfsup.modality import Boxes, Data, Modality, Raw, Reading
from selfsup.moments import mean_and_std, moments_of_channels
from selfsup.pipelines.modalities.pixels.coding import ImageCoding
from selfsup.pipelines.modalities.pixels.decode import How, check_bits, decode, depth, dimensions
from selfsup.sections import Backbone
from selfsup.views import CROP_DRAWS, Center, Crop, Views, boxes, central_boxes, flips, sized

if TYPE_CHECKING:
    from torch import Tensor

STATISTICS_SIDE = 256  # pixels, about that of training images: the deviation falls with the resolution
MIN_STD = 1 / 255  # images of one flat color would divide by zero
RAND_AUGMENT_DRAWS = 2
PHOTO_DRAWS = 13  # jitter?, four strengths, four ranks for their order, gray?, blur?, its sigma, solarize?


class ImageReading(Reading):
    """The settings by which values of images are read.

    channels: 3 for RGB, to which all images are converted; 1 for gray; or as many as every image has. bits: number in
    use of 16, so that 2^bits - 1 is white; None or 16: all. depth: bits that values keep.
    """

    channels: Annotated[int, Field(gt=0, le=4096)] = 3
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    depth: Literal[8, 16] = 8

    @property
    def how(self) -> How:
        return How(self.channels, None if self.bits == 16 else self.bits, self.depth)


class ImageStats(ImageReading):
    """Settings of reading, and the mean and std of each channel, of values in [0, 1]."""

    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]

    _of_every_channel = moments_of_channels()

    def identity(self) -> list[Any]:
        settings = [self.bits] if self.bits else []
        return [self.mean, self.std, *settings, *([{"depth": self.depth}] if self.depth != 8 else [])]


class Measure(NamedTuple):
    """The first two moments of each channel of an image, (C,) each, and the bits in use if there are more than 8."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    bits: int


class Image(Modality):
    """Crops are made on the host, from one decode that is no larger than needed; photometry is the device's."""

    suffixes: ClassVar[tuple[str, ...]] = ("jpg", "jpeg", "png", "webp")
    others: ClassVar[tuple[str, ...]] = ("jfif", "jpe", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "avif")
    axes, values = ("row", "column"), "pixels"
    given = "images", "(B, C, H, W), uint8 or floats in [0, 1], of any size"
    Reading, Stats = ImageReading, ImageStats
    place_draws, absent = CROP_DRAWS, 0

    def sizes(self, backbone: Backbone, knobs: Knobs) -> tuple[int, ...]:  # noqa: ARG002
        return backbone.image_size, backbone.image_size

    def views(self, views: Views, sizes: tuple[int, ...], knobs: Knobs) -> Views:  # noqa: ARG002
        return sized(views, sizes[0])

    def whole(self, sizes: tuple[int, ...], share: float, knobs: Knobs) -> Center:  # noqa: ARG002
        return Center(size=sizes[0], share=share)

    def extent(self, data: Data, reading: ImageReading) -> tuple[int, ...]:
        return dimensions(data, reading.how)

    def place(self, view: Crop | Center, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        height, width = extents.T
        if isinstance(view, Center):
            where = central_boxes(view, height, width)
        else:
            where = boxes(view, height, width, draws)
        return np.concatenate([where, flips(view, draws)[:, None]], axis=1)

    def raw(self, view: Crop | Center, reading: ImageReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.uint8 if reading.depth == 8 else np.float32

    def load(self, data: Data, boxes: Boxes, views: Sequence[Crop | Center], reading: ImageReading) -> list[Raw]:
        from selfsup.pipelines.modalities.pixels.crops import crops

        sizes, filters = [view.size or 0 for view in views], [view.resample for view in views]
        return crops(data, boxes[:, :4], sizes, filters, (boxes[:, 4] > 0).tolist(), reading.how)

    def fill(
        self,
        samples: Sequence[Data],
        boxes: Boxes,
        views: Sequence[Crop | Center],
        reading: ImageReading,
        out: Sequence[Raw],
    ) -> list[int]:
        from selfsup.pipelines.modalities.pixels.crops import fill

        return fill(samples, boxes[..., :4], [view.resample for view in views], boxes[..., 4] > 0, reading.how, out)

    def change_draws(self, view: Crop | Center) -> int:
        return RAND_AUGMENT_DRAWS if isinstance(view, Crop) and view.rand_augment else 0

    def change(self, raw: Raw, view: Crop | Center, reading: ImageStats, draws: NDArray[np.floating]) -> Raw:
        if not isinstance(view, Crop) or view.rand_augment is None:
            return raw
        from selfsup.pipelines.modalities.pixels.randaugment import rand_augment

        return rand_augment(raw, draws, view.rand_augment, reading.mean)

    def unfit(self, view: Crop | Center, reading: ImageReading) -> str:
        changed = isinstance(view, Crop) and view.rand_augment
        if changed and (reading.channels, reading.depth) != (3, 8):
            return f"RandAugment takes RGB of 8 bits, not {reading.channels} channels of {reading.depth}"
        return ""

    def fit(self, samples: "Tensor", view: Crop | Center, reading: ImageReading) -> "Tensor":
        """(B, C, H, W), integers or floats in [0, 1] -> (B, size, size, C), floats in [0, 1]"""
        from selfsup.pipelines.modalities.pixels.resample import checked, resampled

        images = checked(samples, reading.how)
        box = self.place(view, np.array([images.shape[2:]]), np.empty((1, 0)))[0, :4]
        return resampled(images, box.tolist(), view.lengths[0], view.resample).movedim(1, -1)

    def begin_thread(self) -> None:
        from selfsup.pipelines.modalities.pixels.crops import single_threaded

        single_threaded()

    def augment_draws(self, view: Crop | Center) -> int:
        return PHOTO_DRAWS * view.parts if isinstance(view, Crop) else 0

    def augment(self, raw: "Tensor", view: Crop | Center, draws: "Tensor") -> "Tensor":
        """-> (B, C, H, W), in [0, 1]"""
        from selfsup.pipelines.modalities.pixels.augment import photometric, scaled

        images = scaled(raw)
        if isinstance(view, Crop):
            photometric(images, view, draws)
        return images

    def normalize(self, values: "Tensor", view: Crop | Center, stats: ImageStats) -> "Tensor":  # noqa: ARG002
        from selfsup.pipelines.modalities.pixels.augment import normalize

        return normalize(values, mean=stats.mean, std=stats.std)

    def picture(self, values: "Tensor", stats: ImageStats) -> NDArray[np.uint8]:
        """-> (B, H, W, 3): of many channels the first three, of two the first"""
        shown = 3 if stats.channels > 2 else 1
        mean, std = (values.new_tensor(moment).view(-1, 1, 1) for moment in (stats.mean, stats.std))
        colors = ((values * std + mean).clamp(0, 1) * 255).round().byte()[:, :shown].expand(-1, 3, -1, -1)
        pixels: NDArray[np.uint8] = colors.permute(0, 2, 3, 1).numpy()
        return pixels

    def coding(self, reading: ImageReading, **options: Any) -> ImageCoding:
        members = ImageReading() if (reading.channels, reading.depth) == (3, 8) else reading  # of JPEGs
        return ImageCoding(how=reading.how, is_known=reading.bits is not None, reading=members, **options)

    def measure(self, data: Data, reading: ImageReading) -> Measure:
        pixels = decode(data, min_height=STATISTICS_SIDE, min_width=STATISTICS_SIDE, how=reading.how)
        values = pixels / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
        return Measure(values.mean((0, 1)), (values**2).mean((0, 1)), depth(data, reading.how))

    def check(self, data: Data, reading: ImageReading) -> None:
        decode(data, min_height=1, min_width=1, how=reading.how)

    def statistics(self, measures: Sequence[Measure], reading: ImageReading) -> ImageStats:
        """Return means over images, each of the same weight. Raises DataError as `check_bits`."""
        check_bits(reading.bits, [measure.bits for measure in measures])
        first = np.mean([measure.first for measure in measures], axis=0)
        second = np.mean([measure.second for measure in measures], axis=0)
        mean, std = mean_and_std(first, second, MIN_STD)
        settings = reading.model_dump() | ({"bits": None} if reading.bits == 16 else {})
        return ImageStats(**settings, mean=mean, std=std)
