"""Samples and text in the space that the towers of an objective share: what evaluations of both are scored by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup import modality
from selfsup.feature_choice import FeatureChoice
from selfsup.method import Method, TrainInfo
from selfsup.pipelines.modalities.text import encoded
from selfsup.pipelines.stages.classify import restored
from selfsup.spec import Run
from selfsup.views import ViewSpec

TEXT = "text"


@dataclass(frozen=True)
class PairSource:
    """A trained objective of two towers.

    weights: its file, which tells run and info. view, stats: of each sample, as an EncoderSource's. classes: that
    prompts name.
    """

    run: Run = field(compare=False)
    info: TrainInfo = field(compare=False)
    weights: Path
    view: ViewSpec
    stats: Any
    reads: FeatureChoice
    classes: tuple[str, ...]

    @property
    def beside(self) -> ViewSpec | None:
        """Return the view of what lies beside each sample; None where it is not read."""
        return caption(self.run) if self.reads.kind == "pairs" else None

    def model(self) -> Callable[..., Tensor]:
        """Return the function of loaded views, (B, *S, C) and (B, L, 1), to pairs, (B, 2, D).

        Or of (B, *S, C) alone to cosines with the prompts of each class, (B, C).
        """
        method, device, seen = restored(self.run, self.info, self.weights, self.view, self.stats)
        name = self.run.modality
        if self.reads.kind == "pairs":

            def pairs(raw: Tensor, text: Tensor) -> Tensor:
                return torch.stack([method.joint(name, seen(raw)), _text(method, text.to(device))], dim=1)

            return pairs
        prompts = self._prompts(method, device)
        return lambda raw: method.joint(name, seen(raw)) @ prompts.T

    def _prompts(self, method: Method, device: torch.device) -> Tensor:
        """-> (C, D): a unit vector for each class"""
        asked, knobs = self.reads.prompts, self.run.kinds.beside[TEXT]
        assert asked is not None, "no prompts"
        names = dict(asked.names)
        rows = []
        with torch.inference_mode():
            for name in self.classes:
                words = names.get(name, name.replace("_", " "))
                texts = [encoded(template.replace("{}", words), knobs) for template in asked.templates]
                raw = torch.stack([torch.from_numpy(text) for text in texts])
                rows.append(_text(method, raw.to(device)).mean(0))
        return F.normalize(torch.stack(rows), dim=1)


def caption(run: Run) -> ViewSpec:
    """Return the view of captions that evaluation sees."""
    return modality.load(TEXT).whole((), 1.0, run.kinds.beside[TEXT])


def _text(method: Method, raw: Tensor) -> Tensor:
    """(B, L, 1), as loaded -> (B, D)"""
    return method.joint(TEXT, modality.load(TEXT).seen(raw.movedim(-1, 1), None))
