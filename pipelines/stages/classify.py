"""Predictions of a trained head: what evaluations that train an encoder are scored by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfsup import tensors
from selfsup.method import TrainInfo
from selfsup.pipelines.objective import build
from selfsup.pretrained import PretrainedEncoder
from selfsup.spec import Run
from selfsup.views import ViewSpec


@dataclass(frozen=True)
class HeadSource:
    """A trained objective that predicts classes or maps.

    weights: its file. view, stats: of each sample, as an EncoderSource's.
    """

    run: Run
    info: TrainInfo
    weights: Path
    view: ViewSpec
    stats: Any

    def model(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function of loaded views, (B, *S, C), to predictions, (B, classes) or (B, T, D)."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        method = build(self.run, self.info, torch.device("cpu"))
        tensors.fill(method, self.weights)
        method = method.to(device).eval()
        model = PretrainedEncoder(method.encoder(self.run.modality), self.view, self.stats)
        return lambda raw: method.predict(model.view_of(raw.to(device)))
