"""Modalities of samples in the space that the towers of an objective share: what evaluations of them are scored by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup import modality
from selfsup.feature_choice import FeatureChoice
from selfsup.input_kinds import shape_beside, whole_of
from selfsup.method import Method, TrainInfo
from selfsup.modality import Reading
from selfsup.pipelines.modalities.text import encoded
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.classify import restored, seen_by
from selfsup.spec import Run
from selfsup.views import ViewSpec

TEXT = "text"


@dataclass(frozen=True)
class PairSource:
    """A trained objective of several towers.

    weights: its file, which tells run and info. views, stats: of each modality that is read, as an EncoderSource's of
    samples. classes: that prompts name.
    """

    run: Run = field(compare=False)
    info: TrainInfo = field(compare=False)
    weights: Path
    views: tuple[ViewSpec, ...]
    stats: tuple[Reading, ...]
    reads: FeatureChoice
    classes: tuple[str, ...]

    @property
    def view(self) -> ViewSpec:
        """Return the view of what is loaded first."""
        return self.views[0]

    @property
    def beside(self) -> ViewSpec | None:
        """Return the view of what is loaded beside it; None where nothing is."""
        return self.views[1] if self.views[1:] else None

    def model(self) -> Callable[..., Tensor]:
        """Return the function of loaded views, (B, *S, C) and (B, *S', C'), to pairs, (B, 2, D).

        Or of (B, *S, C) alone to cosines with the prompts of each class, (B, C).
        """
        method = restored(self.run, self.info, self.weights)
        seen = [seen_by(method, *of) for of in zip(self.views, self.stats, strict=True)]

        def joint(number: int, raw: Tensor) -> Tensor:
            return method.joint(self.views[number].modality, seen[number](raw))

        if self.reads.kind == "pairs":
            return lambda *raws: torch.stack([joint(number, raw) for number, raw in enumerate(raws)], dim=1)
        prompts = self._prompts(method)
        return lambda raw: joint(0, raw) @ prompts.T

    def _prompts(self, method: Method) -> Tensor:
        """-> (C, D): a unit vector for each class"""
        asked, knobs = self.reads.prompts, self.run.kinds.beside[TEXT]
        assert asked is not None, "no prompts"
        kind, names, rows = modality.load(TEXT), dict(asked.names), []
        seen = seen_by(method, kind.whole((), 1.0, knobs), kind.Stats())
        with torch.inference_mode():
            for name in self.classes:
                words = names.get(name, name.replace("_", " "))
                texts = [encoded(template.replace("{}", words), knobs) for template in asked.templates]
                raw = torch.stack([torch.from_numpy(text) for text in texts])
                rows.append(method.joint(TEXT, seen(raw)).mean(0))
        return F.normalize(torch.stack(rows), dim=1)


def pair_source(planned: PlannedRun, weights: Path, reads: FeatureChoice, classes: tuple[str, ...]) -> PairSource:
    """Return the objective of a run. weights: its file. reads: the feature. classes: that prompts name."""
    run, stats = planned.run, planned.all_stats
    names = reads.joined(run.modality)[: 2 if reads.kind == "pairs" else 1]
    views = tuple(_whole(run, name, stats[name].channels) for name in names)
    return PairSource(run, planned.size, weights, views, tuple(stats[name] for name in names), reads, classes)


def _whole(run: Run, name: str, channels: int) -> ViewSpec:
    """Return the view of a modality that evaluation sees."""
    if name == run.modality:
        return whole_of(run.kinds, run.backbone, run.embed.crop)
    sizes = shape_beside(name, run.kinds, run.backbone, channels).sizes
    return modality.load(name).whole(sizes, run.embed.crop, run.kinds.beside[name])
