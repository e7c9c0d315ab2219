"""Clips a second of CPU of the training stream, beside torchcodec's decoder in torch's DataLoader.

python tests/benchmarks/clips.py FOLDER    with `pip install 'selfsup[bench]'`, and FFmpeg's libraries where it looks

Both make batches of uint8 crops of the same files: 16 frames, one of every four, of 224 pixels. They take turns, each
in processes of its own; what is compared is CPU time, since machines drift. Videos are photographs that pan, by x264 at
its defaults, with a key frame every 250 frames or every 30.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import stream
import torch
from contenders import CORES, MEMORY, STEPS
from skimage import data
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsup.pipelines.data import manifest
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.video import Video, VideoInput
from selfsup.views import Crop, Views

sys.path.insert(0, str(Path(__file__).parent.parent / "helpers"))
from videos import coded

VIDEOS, FRAMES, RATE, HEIGHT, WIDTH = 24, 300, 30, 256, 340
BATCH, ROUNDS = 8, 3
CROP = Crop(size=224, scale=(0.5, 1.0))
EPOCH = 10**6
GAPS = {"a key frame every 250 frames": "250", "every 30": "30"}


def made(folder: Path, gap: str) -> Manifest:
    """Return the videos in shards, made once."""
    if not (folder / gap / "shards").exists():
        photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
        for number in range(VIDEOS):
            path = folder / gap / "files" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(coded(_panned(photos[number % 4], number), rate=RATE, options={"g": gap}))
        pack(folder / gap / "files", folder / gap / "shards")
    return manifest.load(str(folder / gap / "shards"))


def _panned(photo: Any, seed: int) -> list[Any]:
    """Return parts of a photograph along a walk over it, mirrored at its edges."""
    step = np.random.default_rng(seed).normal(0, 1, (FRAMES, 2)).cumsum(0) * 0.2 + np.arange(FRAMES)[:, None]
    wide = np.pad(photo, [(FRAMES, HEIGHT + FRAMES), (FRAMES, WIDTH + FRAMES), (0, 0)], "symmetric")
    corners = (FRAMES // 2 + step).astype(int).tolist()
    return [wide[top : top + HEIGHT, left : left + WIDTH] for top, left in corners]


def ours(told: Manifest) -> Iterator[int]:
    views = Video().views(Views((CROP,)), (16, 224, 224), VideoInput(rate=RATE / 4))
    order = SampleOrder(samples=told.num_samples, batch=BATCH, seed=0)
    feed = Feed(SampleStream(told, order, views, STEPS), 0, 1, "threads", CORES, MEMORY)
    return (len(torch.from_numpy(columns["view0"])) for columns in feed.steps(0))


class Clips(Dataset[Tensor]):
    """Random clips, as torchcodec's documentation has them. seek: how it finds frames."""

    def __init__(self, told: Manifest, seek: str) -> None:
        samples = SampleReader(told, "video").read(np.arange(told.num_samples))
        self._data, self._seek = [bytes(sample.data) for sample in samples], seek

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, number: int) -> Tensor:
        import av  # noqa: F401 (loads FFmpeg's libraries where the system has none)
        import torchvision.transforms.v2 as T
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(self._data[number % len(self._data)], num_ffmpeg_threads=1, seek_mode=self._seek)
        start = int(torch.randint(len(decoder) - 60, ()))
        clip = decoder.get_frames_at([start + 4 * place for place in range(16)]).data
        change = T.Compose(
            [T.RandomResizedCrop(224, (0.5, 1.0), interpolation=T.InterpolationMode.BICUBIC), T.RandomHorizontalFlip()]
        )
        changed: Tensor = change(clip)
        return changed


def theirs(told: Manifest, seek: str) -> Iterator[int]:
    return map(len, DataLoader(Clips(told, seek), BATCH, num_workers=CORES))


WAYS = {
    "selfsup": ours,
    "torchcodec + DataLoader, exact": partial(theirs, seek="exact"),
    "torchcodec + DataLoader, approximate": partial(theirs, seek="approximate"),
}


def main(folder: Path) -> None:
    for title, gap in GAPS.items():
        made(folder, gap)
        turns = [{name: stream.Measured(*_apart(folder, gap, name)) for name in WAYS} for _ in range(ROUNDS)]
        print(f"\n{title:<42}{'clips/s':>10}{'CPU ms/clip':>14}{'of ours':>9}{'peak MiB':>10}")
        for name in WAYS:
            rate, cpu, memory = (median(values) for values in zip(*(turn[name] for turn in turns), strict=True))
            ratio = median(turn[name].cpu / turn["selfsup"].cpu for turn in turns)
            print(f"  {name:<40}{rate:10.1f}{cpu:14.1f}{ratio:9.2f}{memory:10.0f}")


def _apart(folder: Path, gap: str, name: str) -> Any:
    return stream.spoken([sys.executable, __file__, str(folder), gap, name])


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        stream.say(stream.measured(WAYS[sys.argv[3]](made(Path(sys.argv[1]), sys.argv[2]))))
