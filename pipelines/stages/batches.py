"""The task of a training worker, and the batches that it trains on."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from selfsup import augmentation
from selfsup.augmentation import OwnAugmentation
from selfsup.errors import DataError
from selfsup.input_kinds import views_of
from selfsup.method import Batch, Method, TrainInfo, layouts, load
from selfsup.parts import dist
from selfsup.pipelines.data.collate import ahead, collate
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.shared import SharedFeed
from selfsup.pipelines.data.stream import Columns
from selfsup.pipelines.objective import TrainedMethod
from selfsup.spec import Run
from selfsup.views import Views

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """The task of every training worker of a run.

    resolved: the settings that a checkpoint must agree with. stats: by which samples are normalized. teacher: that it
    learns from. start: the file of the encoder, or of all weights, that it starts from. due: steps after which the
    encoder is evaluated, for which training leaves files of these names: `leaves`. beside: by which each modality
    beside samples is normalized. lacking: samples that lack something of these, left out or not.
    """

    run: Run
    manifest: Manifest
    order: SampleOrder
    info: TrainInfo
    folder: Path
    resolved: dict[str, Any]
    stats: Any
    teacher: TrainedMethod | None = None
    start: Path | None = None
    due: range = range(0)
    leaves: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    lacking: int = 0

    @property
    def steps(self) -> int:
        return self.info.num_steps

    @cached_property
    def views(self) -> Views:
        run = self.run
        return views_of(load(run.method).views(run.hyper), run.kinds, run.backbone)

    @cached_property
    def augment(self) -> OwnAugmentation | None:
        return augmentation.own(self.run.augment)

    @property
    def warmup(self) -> int:
        order = self.order
        return self.run.optim.warmup_steps(batch=order.batch, steps_per_epoch=order.steps_per_epoch)


class BatchLoader:
    """The batches of one worker; it counts undecodable samples on the way. latest: the batch of the current step."""

    def __init__(self, task: Task, method: Method, device: torch.device) -> None:
        self._task, self._device = task, device
        self._patch, self._beside = method.encoder(task.run.modality).patch, layouts(method, task.info)
        self.bad: set[str] = set()
        self.latest: Batch | None = None
        self.waited = 0.0  # seconds, for the feed
        self._feed: Feed | SharedFeed | None = None

    def counted(self) -> dict[str, float]:
        shared = {"shared_steps": float(self._feed.taken)} if isinstance(self._feed, SharedFeed) else {}
        lacking = {"lacking_samples": float(self._task.lacking)} if self._task.lacking else {}
        return {"bad_samples": float(len(self.bad))} | lacking | shared

    def batches(self, feed: Feed | SharedFeed, start: int) -> Iterator[Batch]:
        task, self._feed = self._task, feed
        stats = {task.run.modality: task.stats, **task.beside}
        self.bad = self._earlier(restored=start > 0)
        for step, columns in enumerate(ahead(self._timed(feed.steps(start)), self._device), start):
            self._count(set(columns.pop("bad")))
            self.latest = collate(
                columns,
                task.views,
                seed=task.run.seed,
                step=step,
                patch=self._patch,
                stats=stats,
                beside=self._beside,
                device=self._device,
                own=task.augment,
            )
            yield self.latest

    def _timed(self, rows: Iterator[Columns]) -> Iterator[Columns]:
        """Yield the rows, and add up the time that each takes to come."""
        began = time.perf_counter()
        for row in rows:
            self.waited += time.perf_counter() - began
            yield row
            began = time.perf_counter()

    @property
    def _list(self) -> Path:
        return self._task.folder / f"bad-{dist.rank()}.txt"

    def _earlier(self, *, restored: bool) -> set[str]:
        """Return the names of undecodable samples from before an interruption."""
        if not restored:
            self._list.unlink(missing_ok=True)
        return set(self._list.read_text().splitlines()) if self._list.exists() else set()

    def _count(self, names: set[str]) -> None:
        """Note undecodable samples. Raises DataError for a larger share of the data set than `stream.bad_share`."""
        if not (new := names - self.bad):
            return
        self.bad |= new
        task, share = self._task, self._task.run.stream.bad_share
        with self._list.open("a") as file:
            file.writelines(f"{name}\n" for name in sorted(new))
        logger.warning("%s: replaced samples that cannot be decoded: %s", task.manifest.root, ", ".join(sorted(new)))
        if len(self.bad) > share * task.manifest.num_samples:
            raise DataError(
                f"{task.manifest.root}: {len(self.bad)} of {task.manifest.num_samples} samples cannot be decoded, more "
                f"than stream.bad_share: {share} allows; among them {sorted(self.bad)[:3]}. "
                "Run `selfsup shards check` on it."
            )
