"""Video: clips of frames at equal distances in time, each a part of the picture that is the same in all of them.

Defaults are those of VideoMAE (arXiv 2203.12602) and MAE-ST (arXiv 2205.09113) on Kinetics, of 30 frames a second: 16
frames, one of every four, in tokens of two frames. Objectives' crops, flips and photometric changes of images are those
of clips, drawn once for all frames, as in CVRL (arXiv 2008.03800). Each clip begins anywhere, by itself, as in ρBYOL
(arXiv 2104.14558): the time between two of a video then has a density that falls linearly to 0, CVRL's sampling. So
SimCLR, MoCo and BYOL on clips are theirs, but for the encoder, a ViT, more clips than two, and what specs of `k400/`
tell. A shorter video goes on with its last frame; of a longer one evaluation sees the middle.

Deviation from the authors' code: frames are counted in time, by the stamps at which a player shows them, where theirs
count frames of the file, whatever its rate.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, knob
from selfsup.modality import Boxes, Data, Modality, Raw
from selfsup.pipelines.modalities.image import Image, ImageReading, ImageStats, Measure
from selfsup.sections import Backbone, Embed
from selfsup.views import CROP_DRAWS, Center, Crop, Views, ViewSpec, sized

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = Image()  # what is done to every frame alike
SHOWN = 4  # frames of a picture
MEASURED = 8  # one frame of so many is measured


class VideoInput(Knobs):
    """Clips of videos."""

    frames: int = knob(16, "frames of a clip", symbol="T", sweep=Choice(8, 16, 32), ge=1, le=2**12)
    rate: float = knob(7.5, "frames a second of a clip", sweep=Choice(3.75, 7.5, 15.0), gt=0, le=1000)
    tubelet: int = knob(2, "frames of a token", sweep=Choice(1, 2), ge=1)
    flip: bool = knob(True, "training mirrors clips where an objective mirrors images", sweep=Choice(True, False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(ViewSpec):
    """A clip. crop: of its frames, with its size. A random one is anywhere in time, for training; else the middle.

    clips, crops: of several in its place, as MAE-ST tests (arXiv 2205.09113, section 4): clips from the first to the
    last that there is, each cut into so many squares along the longer side, all in one array.
    """

    modality: ClassVar[str] = "video"
    knobs: VideoInput
    crop: Crop | Center
    clips: int = 1
    crops: int = 1

    @property
    def num_parts(self) -> int:
        return self.clips * self.crops

    @property
    def is_random(self) -> bool:
        return isinstance(self.crop, Crop)

    @property
    def step(self) -> float:
        """Return the milliseconds from frame to frame."""
        return 1000 / self.knobs.rate

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.num_parts * self.knobs.frames, *self.crop.lengths

    @property
    def geometry(self) -> tuple[Any, ...]:
        return self.knobs.frames, self.knobs.rate, self.is_random, *self.crop.geometry, self.of


class VideoReading(ImageReading):
    """The settings by which frames are read: RGB of 8 bits."""

    channels: Literal[3] = 3
    bits: None = None
    depth: Literal[8] = 8


class VideoStats(VideoReading, ImageStats):
    """Mean and std of each channel, of values in [0, 1]."""


@final
class Video(Modality):
    """Frames are decoded and cropped on the host, no more of them than a clip needs; photometry is the device's.

    Places and extents along time are in milliseconds.
    """

    suffixes, others = ("mp4", "webm", "mkv", "avi"), ("mov", "m4v")
    requires = ("av",)
    axes, values = ("frame", "row", "column"), "clips"
    given = "clips", "(B, 3, T, H, W), uint8 or floats in [0, 1], of T frames of any size"
    Input, Reading, Stats = VideoInput, VideoReading, VideoStats
    idle, place_draws = (), CROP_DRAWS + 1  # the last one: the start
    absent = 0
    cheap: ClassVar[dict[str, Any]] = {"frames": 8}

    def sizes(self, backbone: Backbone, knobs: VideoInput) -> tuple[int, ...]:
        return knobs.frames, backbone.image_size, backbone.image_size

    def leading(self, knobs: VideoInput) -> tuple[int, ...]:
        return (knobs.tubelet,)

    def views(self, views: Views, sizes: tuple[int, ...], knobs: VideoInput) -> Views:
        return dataclasses.replace(views, specs=tuple(_clip(spec, knobs) for spec in sized(views, sizes[1]).specs))

    def whole(self, sizes: tuple[int, ...], share: float, knobs: VideoInput) -> Clip:
        return Clip(knobs=knobs, crop=Center(size=sizes[1], share=share, rounded=True))

    def tested(self, view: Clip, embed: Embed) -> Clip:
        return dataclasses.replace(view, clips=embed.clips, crops=embed.crops)

    def extent(self, data: Data, reading: VideoReading) -> tuple[int, ...]:  # noqa: ARG002
        from selfsup.pipelines.modalities.pixels.frames import header

        return tuple(header(data))

    def place(self, view: Clip, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        if view.num_parts > 1:  # the whole, of which `load` cuts them
            return np.concatenate([0.0 * extents, extents, 0.0 * extents[:, :1]], axis=1)
        length = extents[:, 0].astype(np.float64)
        shown = np.minimum(length, view.knobs.frames * view.step)
        start = np.floor((length - shown) * (draws[:, -1] if view.is_random else 0.5))
        part = IMAGES.place(view.crop, extents[:, 1:], draws[:, :CROP_DRAWS])
        return np.concatenate([start[:, None], part[:, :2], shown[:, None], part[:, 2:]], axis=1)

    def raw(self, view: Clip, reading: VideoReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.uint8

    def load(self, data: Data, boxes: Boxes, views: Sequence[Clip], reading: VideoReading) -> list[Raw]:  # noqa: ARG002
        from selfsup.pipelines.modalities.pixels.frames import cropped, frames

        parts = [(part, view) for box, view in zip(boxes, views, strict=True) for part in _parts(box, view)]
        times = [box[0] + view.step * np.arange(view.knobs.frames) for box, view in parts]
        every, numbers = np.unique(np.concatenate(times), return_inverse=True)
        shown = frames(data, every.tolist())
        own = np.split(numbers, np.cumsum([len(part) for part in times])[:-1])
        made = (
            cropped(shown, number, (*box[1:3], *box[4:6]), view.crop, is_mirrored=bool(box[6]))
            for number, (box, view) in zip(own, parts, strict=True)
        )
        return [np.concatenate([next(made) for _ in range(view.num_parts)]) for view in views]

    def change_draws(self, view: Clip) -> int:
        return IMAGES.change_draws(view.crop)

    def change(self, raw: Raw, view: Clip, reading: VideoStats, draws: NDArray[np.floating]) -> Raw:
        """-> (T, H, W, 3), every frame changed alike, as VideoMAE's code fine-tunes"""
        return np.stack([IMAGES.change(frame, view.crop, reading, draws) for frame in raw])

    def fit(self, samples: "Tensor", view: Clip, reading: VideoReading) -> "Tensor":
        """(B, 3, T, H, W), integers or floats in [0, 1] -> (B, T, size, size, 3), floats in [0, 1]"""
        length = view.knobs.frames
        if samples.ndim != 5 or samples.shape[2] != length:
            expected = f"clips of {length} frames, ('B', 3, {length}, 'H', 'W')"
            raise SpecError(f"expected {expected}, not {tuple(samples.shape)}")
        frames = IMAGES.fit(samples.transpose(1, 2).flatten(0, 1), view.crop, reading)
        return frames.reshape(-1, length, *frames.shape[1:])

    def begin_thread(self) -> None:
        IMAGES.begin_thread()

    def augment_draws(self, view: Clip) -> int:
        return IMAGES.augment_draws(view.crop)

    def augment(self, raw: "Tensor", view: Clip, draws: "Tensor") -> "Tensor":
        """-> (B, 3, T, H, W), in [0, 1], every frame changed alike"""
        length = raw.shape[1]
        frames = IMAGES.augment(raw.flatten(0, 1), view.crop, draws.repeat_interleave(length, dim=0))
        return frames.reshape(-1, length, *frames.shape[1:]).transpose(1, 2)

    def normalize(self, values: "Tensor", view: Clip, stats: VideoStats) -> "Tensor":  # noqa: ARG002
        mean, std = (values.new_tensor(moment).view(-1, 1, 1, 1) for moment in (stats.mean, stats.std))
        return values.sub_(mean).div_(std)

    def picture(self, values: "Tensor", stats: VideoStats) -> NDArray[np.uint8]:
        """-> (B, H, SHOWN * W, 3): frames from the first to the last, side by side"""
        numbers = np.linspace(0, values.shape[2] - 1, SHOWN).round().astype(int).tolist()
        return np.concatenate([IMAGES.picture(values[:, :, number], stats) for number in numbers], axis=2)

    def measure(self, data: Data, reading: VideoReading) -> Measure:  # noqa: ARG002
        from selfsup.pipelines.modalities.pixels.frames import every

        parts = [frame / 255 for number, frame in enumerate(every(data)) if number % MEASURED == 0]
        first = np.mean([part.mean((0, 1)) for part in parts], axis=0)
        return Measure(first, np.mean([(part**2).mean((0, 1)) for part in parts], axis=0), 0)

    def statistics(self, measures: Sequence[Measure], reading: VideoReading) -> VideoStats:
        """Return means over videos, each of the same weight."""
        stats = IMAGES.statistics(measures, reading)
        return VideoStats(mean=stats.mean, std=stats.std)


def _parts(box: NDArray[np.float64], view: Clip) -> NDArray[np.float64]:
    """(7,) -> (parts, 7): the box of each clip and crop in turn; of one the box itself."""
    if view.num_parts == 1:
        return box[None]
    assert isinstance(view.crop, Center), "several are of evaluation"
    length, *picture = box[3:6]
    shown, side = min(length, view.knobs.frames * view.step), max(1.0, np.rint(view.crop.share * min(picture)))
    is_long = np.array(picture) == max(picture) if picture[0] != picture[1] else np.array([False, True])
    places = [
        (start * (length - shown), *np.where(is_long, end, 0.5) * (np.array(picture) - side))
        for start in _shares(view.clips)
        for end in _shares(view.crops)
    ]
    return np.array([(*np.floor(place), shown, side, side, 0.0) for place in places])


def _shares(number: int) -> NDArray[np.float64]:
    """Return so many shares from 0 to 1 at equal distances; one is a half."""
    return np.linspace(0, 1, number) if number > 1 else np.array([0.5])


def _clip(spec: Crop | Center, knobs: VideoInput) -> Clip:
    whole: dict[str, Any] = {"rounded": True} if isinstance(spec, Center) else {}
    crop = dataclasses.replace(spec, mask=None, of=None, flip=spec.flip * knobs.flip, **whole)
    return Clip(knobs=knobs, crop=crop, mask=spec.mask, of=spec.of)
