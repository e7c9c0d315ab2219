"""Samples with what lies beside them, by a whole objective: in the space that its towers share, or pair by pair."""

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
from selfsup.parts.numbered import numbered
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.modalities.text import encoded
from selfsup.pipelines.objective import TrainedMethod
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.classify import restored, seen_by
from selfsup.spec import Run
from selfsup.views import ViewSpec

TEXT, AT_ONCE = "text", 256  # captions


@dataclass(frozen=True)
class PairSource:
    """A trained objective of several towers.

    weights: its file, which tells run, info and teacher. views, stats: of each modality that is read, as an
    EncoderSource's of samples. classes: that prompts name.
    """

    run: Run = field(compare=False)
    info: TrainInfo = field(compare=False)
    weights: Path
    views: tuple[ViewSpec, ...]
    stats: tuple[Reading, ...]
    reads: FeatureChoice
    classes: tuple[str, ...]
    teacher: TrainedMethod | None = field(default=None, compare=False)

    @property
    def view(self) -> ViewSpec:
        """Return the view of what is loaded first."""
        return self.views[0]

    @property
    def beside(self) -> ViewSpec | None:
        """Return the view of what is loaded beside it; None where nothing is."""
        return self.views[1] if self.views[1:] else None

    def model(self) -> Callable[..., Tensor]:
        """Return the function of loaded parts, (P, *S, C), and views beside, (B, *S', C'), to pairs, (P, 2, D).

        Or of parts alone to cosines with the prompts of each class, (P, C), or to what its tower pools, (P, D).
        P: B times the parts of a sample.
        """
        method = restored(self.run, self.info, self.weights, self.teacher)
        seen = [seen_by(method, *of) for of in zip(self.views, self.stats, strict=True)]

        if self.reads.tower:
            return lambda raw: method.encoder(self.view.modality).pooled(seen[0](raw))

        def joint(number: int, raw: Tensor) -> Tensor:
            return method.joint(self.views[number].modality, seen[number](raw))

        def pairs(raw: Tensor, beside: Tensor) -> Tensor:
            """(P, ...), (B, ...) -> (P, 2, D): of what lies beside, its mean, with each part"""
            own, other = joint(0, raw), joint(1, apart(beside, self.views[1]))
            mean = other.view(len(beside), -1, other.shape[1]).mean(1)
            return torch.stack([own, mean.repeat_interleave(len(own) // len(mean), dim=0)], dim=1)

        if self.reads.kind == "pairs":
            return pairs
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


@dataclass(frozen=True)
class MatchSource:
    """A trained objective that says of samples and captions whether they belong together.

    pair: the objective, and how both are seen. captions: (N, L, 1) int32, those that are asked for, as bytes.
    """

    pair: PairSource
    captions: bytes

    @property
    def view(self) -> ViewSpec:
        return self.pair.view

    def model(self) -> Callable[..., Tensor]:
        """Return the function of loaded samples, (B, *S, C), and their captions, (B, L, 1), to scores, (B, 1 + N).

        Of each sample: which of the N captions is its own, and how likely each is. Equal ones are seen once.
        """
        pair = self.pair
        method = restored(pair.run, pair.info, pair.weights, pair.teacher)
        seen = seen_by(method, pair.view, pair.stats[0])
        device = next(method.parameters()).device
        texts = torch.frombuffer(bytearray(self.captions), dtype=torch.int32).view(-1, *pair.views[1].lengths, 1)
        different, number = torch.unique(texts, dim=0, return_inverse=True)
        parts = [numbered(part.movedim(-1, 1).to(device)) for part in torch.split(different, AT_ONCE)]

        def matched(raw: Tensor, words: Tensor) -> Tensor:
            each_part = words.repeat_interleave(len(raw) // len(words), dim=0)
            own = [(texts == row.cpu()).flatten(1).all(1).nonzero()[0, 0] for row in each_part]
            rows = [
                [method.matched(_repeated(view, part), part) for part in parts]
                for view in map(seen, torch.split(raw, 1))
            ]
            scores = torch.stack([torch.cat(row) for row in rows])[:, number.to(device)]
            return torch.cat([torch.stack(own)[:, None].to(scores), scores], dim=1)

        return matched


def _repeated(view: Tokens | Tensor, words: Tokens) -> Tokens | Tensor:
    """(1, ...), (B, L, 1) -> (B, ...): a sample for each caption"""
    if isinstance(view, Tensor):
        return view.expand(len(words.value), *view.shape[1:])
    value, coord = (part.expand(len(words.value), -1, -1) for part in (view.value, view.coord))
    return view._replace(value=value, coord=coord)


def pair_source(planned: PlannedRun, weights: Path, reads: FeatureChoice, classes: tuple[str, ...]) -> PairSource:
    """Return the objective of a run. weights: its file. reads: the feature. classes: that prompts name."""
    run, stats = planned.run, planned.all_stats
    names = (reads.tower,) if reads.tower else reads.joined(run.modality)[: 1 if reads.kind == "prompted" else 2]
    views = tuple(_whole(run, name, stats[name].channels) for name in names)
    own = tuple(stats[name] for name in names)
    return PairSource(run, planned.size, weights, views, own, reads, classes, planned.taught)


def _whole(run: Run, name: str, channels: int) -> ViewSpec:
    """Return the view of a modality that evaluation sees, of as many parts of samples as features are averaged over."""
    kind = modality.load(name)
    if name == run.modality:
        view = whole_of(run.kinds, run.backbone, run.embed.crop)
    else:
        sizes = shape_beside(name, run.kinds, run.backbone, channels).sizes
        view = kind.whole(sizes, run.embed.crop, run.kinds.beside[name])
    parts: ViewSpec = kind.tested(view, run.embed)
    return parts


def apart(raw: Tensor, view: ViewSpec) -> Tensor:
    """(B, parts * T, ...) -> (B * parts, T, ...): the parts of samples, each to be encoded"""
    return raw.view(len(raw) * view.num_parts, -1, *raw.shape[2:])
