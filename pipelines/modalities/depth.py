"""Depth: how far each pixel lies along the camera's axis, beside an image or alone.

`.depth.png`, of 16 bits in millimeters; `.depth.tif`, `.depth.npy`, `.depth.npz` of one array, or `.depth.exr`, which
takes the extra `exr`, in meters or any other unit. What is not finite, or not above zero, is unknown. Each view is
normalized by itself as in MultiMAE (Bachmann et al., ECCV 2022, arXiv:2204.01678): by mean and deviation of its values
without the lowest and highest tenth. Unknown values count in neither, and are zero then. Views are cut and mirrored as
those of images; of resizing, the nearest pixel counts.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from selfsup.knob import Choice, Knobs, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.pipelines.data.annotation import nearest
from selfsup.pipelines.modalities.image import Image
from selfsup.sections import Backbone
from selfsup.views import CROP_DRAWS, Center, Crop, Views, ViewSpec, sized

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = Image()  # depth maps are placed as images are
MILLIMETERS = 1000  # in one unit of a PNG's values
OPENEXR = b"\x76\x2f\x31\x01"  # begin of such files
EPS = 1e-6  # of variances
REACH = 2.0  # deviations from the middle of a picture's colors to their ends


class DepthInput(Knobs):
    """Depth maps, and their scale."""

    disparity: bool = knob(False, "values are one over the depth, in which near things differ more")
    truncate: float = knob(
        0.1,
        "share of the values that counts in no mean and deviation, at each end",
        sweep=Choice(0.0, 0.1),
        ge=0,
        lt=0.5,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthMap(ViewSpec):
    """A part of a depth map. crop: where it lies, and its size."""

    modality: ClassVar[str] = "depth"
    channels: ClassVar[int | None] = 1
    knobs: DepthInput
    crop: Crop | Center

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.crop.lengths

    @property
    def geometry(self) -> tuple[Any, ...]:
        return "depth", self.knobs.disparity, *self.crop.geometry, self.of


class DepthReading(Reading):
    """The settings by which depth is read: there are none, and no statistics, since views are normalized one by one."""

    channels: Literal[1] = 1

    def identity(self) -> list[Any]:
        return []


@final
class DepthMaps(Modality):
    """Maps are cut on the host, and normalized on the device. Unknown values are NaN in between."""

    suffixes, others = ("depth.png",), ("depth.tif", "depth.tiff", "depth.exr", "depth.npy", "depth.npz")
    is_aside = True  # beside images, depth is a companion of theirs
    axes, values = ("row", "column"), "depth maps"
    given = "depth maps", "(B, 1, H, W), of any size, in any unit; zero, negative or not finite where it is unknown"
    Input, Reading, Stats = DepthInput, DepthReading, DepthReading
    place_draws = CROP_DRAWS
    absent = np.nan

    def sizes(self, backbone: Backbone, knobs: DepthInput) -> tuple[int, ...]:  # noqa: ARG002
        return backbone.image_size, backbone.image_size

    def views(self, views: Views, sizes: tuple[int, ...], knobs: DepthInput) -> Views:
        maps = tuple(_map(spec, knobs) for spec in sized(views, sizes[0]).specs)
        return dataclasses.replace(views, specs=maps)

    def whole(self, sizes: tuple[int, ...], share: float, knobs: DepthInput) -> DepthMap:
        return DepthMap(knobs=knobs, crop=Center(size=sizes[0], share=share))

    def extent(self, data: Data, reading: DepthReading) -> tuple[int, ...]:  # noqa: ARG002
        if bytes(data[:4]) == b"\x89PNG":
            with _png(data) as image:
                return image.height, image.width
        return decoded(data).shape

    def place(self, view: DepthMap, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        return IMAGES.place(view.crop, extents, draws)

    def raw(self, view: DepthMap, reading: DepthReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.float32

    def load(self, data: Data, boxes: Boxes, views: Sequence[DepthMap], reading: DepthReading) -> list[Raw]:  # noqa: ARG002
        values = decoded(data)
        return [_cut(values, box, view)[..., None] for box, view in zip(boxes, views, strict=True)]

    def fit(self, samples: "Tensor", view: DepthMap, reading: DepthReading) -> "Tensor":  # noqa: ARG002
        """(B, 1, H, W) -> (B, size, size, 1), NaN where it is unknown"""
        import torch

        maps = samples.cpu().numpy()[:, 0]
        [box] = self.place(view, np.array([maps.shape[1:]]), np.zeros((1, self.place_draws)))
        cut = np.stack([_cut(_known(values), box, view) for values in maps])[..., None]
        return torch.from_numpy(cut).to(samples.device)

    def augment_draws(self, view: DepthMap) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: DepthMap, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: DepthMap, stats: DepthReading) -> "Tensor":  # noqa: ARG002
        return standardized(values, view.knobs.truncate)

    def picture(self, values: "Tensor", stats: DepthReading) -> NDArray[np.uint8]:  # noqa: ARG002
        """-> (B, H, W, 3): near dark, far bright"""
        from matplotlib import colormaps

        level = ((values[:, 0] / REACH + 1) / 2).clamp(0, 1)
        return np.asarray(colormaps["magma"](level.numpy(), bytes=True)[..., :3])

    def measure(self, data: Data, reading: DepthReading) -> None:  # noqa: ARG002
        decoded(data)

    def statistics(self, measures: Sequence[None], reading: DepthReading) -> DepthReading:  # noqa: ARG002
        return reading


def standardized(values: "Tensor", truncate: float) -> "Tensor":
    """(B, 1, H, W), NaN where unknown -> (B, 1, H, W), zero there: less a mean, over a deviation, of each map."""
    import torch

    ordered = values.flatten(1).double().sort(dim=1).values  # NaN comes last
    number = (~ordered.isnan()).sum(1, keepdim=True).double()
    place = torch.arange(ordered.shape[1], device=values.device)
    counts = (place >= (truncate * number).floor()) & (place < ((1 - truncate) * number).floor())
    total = counts.sum(1)
    mean = ordered.where(counts, 0.0).sum(1) / total
    squares = (ordered - mean[:, None]).square().where(counts, 0.0).sum(1)
    scale = (squares / (total - 1) + EPS).sqrt()
    mean, scale = (moment.view(-1, 1, 1, 1) for moment in (mean, scale))
    return ((values - mean) / scale).nan_to_num(0.0, 0.0, 0.0).to(values.dtype)


def decoded(data: Data) -> NDArray[np.float32]:
    """-> (H, W), NaN where unknown. Raises DecodeError for what holds no depth map."""
    start = bytes(data[:6])
    try:
        if start[:4] == b"\x89PNG":
            with _png(data) as image:
                return _known(np.asarray(image, np.float32) / MILLIMETERS)
        if start[:4] in (b"II*\0", b"MM\0*"):
            import tifffile  # takes a while, and most depth maps are no TIFFs

            return _known(tifffile.imread(io.BytesIO(data)))
        if start[:4] == OPENEXR:
            return _known(_exr(data))
        content = np.load(io.BytesIO(data), allow_pickle=False)
        return _known(content if isinstance(content, np.ndarray) else content[content.files[0]])
    except DecodeError:
        raise
    except Exception as error:  # as Pillow, tifffile and NumPy raise many types on corrupt bytes
        raise DecodeError(f"a damaged depth map, or none: {error}") from error


def _exr(data: Data) -> NDArray[Any]:
    """-> (H, W): the channel of an OpenEXR file that holds depth. Raises DecodeError."""
    try:
        import OpenEXR
    except ImportError:
        message = "an OpenEXR file, which takes pip install 'selfsup[exr]'; or save it as .depth.tif or .depth.npy"
        raise DecodeError(message) from None
    channels = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
    depth = [name for name in channels if name.rpartition(".")[2] == "Z"]
    chosen = depth or ([*channels] if len(channels) == 1 else [])
    if len(chosen) != 1:
        raise DecodeError(f"expected one channel, or one named Z, got {', '.join(channels)}")
    values: NDArray[Any] = channels[chosen[0]].pixels
    return values


def _png(data: Data) -> Any:
    """Return an opened PNG of one channel. Raises DecodeError."""
    try:
        image = Pillow.open(io.BytesIO(data), formats=["PNG"])
    except Exception as error:
        raise DecodeError(f"a damaged depth map, or none: {error}") from error
    if not image.mode.startswith(("I", "L")) or image.mode == "LA":
        raise DecodeError(f"expected one number a pixel, of 8 or 16 bits, got {image.mode}")
    return image


def _known(values: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W) -> (H, W), NaN where depth is unknown. Raises DecodeError for other shapes."""
    values = np.squeeze(values)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DecodeError(f"expected one number a pixel, (H, W), not an array of {values.dtype} {values.shape}")
    values = values.astype(np.float32)
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(np.nan))


def _cut(values: NDArray[np.float32], box: NDArray[np.float64], view: DepthMap) -> NDArray[np.float32]:
    """(H, W) -> (S, S): the part in a box, mirrored where it says so"""
    (rows, columns), (top, left, height, width, mirrored) = view.lengths, box[:5]
    part = values[nearest(top, height, rows)][:, nearest(left, width, columns)]
    part = part[:, ::-1] if mirrored else part
    return np.reciprocal(part) if view.knobs.disparity else part


def _map(spec: Crop | Center, knobs: DepthInput) -> DepthMap:
    return DepthMap(knobs=knobs, crop=dataclasses.replace(spec, mask=None, of=None), mask=spec.mask, of=spec.of)
