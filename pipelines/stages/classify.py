"""Predictions of a trained head: what evaluations that train an encoder are scored by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsup import tensors
from selfsup.method import Method, TrainInfo
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.objective import TrainedMethod, build
from selfsup.pretrained import PretrainedEncoder
from selfsup.spec import Run
from selfsup.views import ViewSpec


@dataclass(frozen=True)
class HeadSource:
    """A trained objective that predicts classes or maps.

    weights: its file, which tells run and info. view, stats: of each sample, as an EncoderSource's. decoded: the map
    that its own decoder paints; "" for what it predicts by labels.
    """

    run: Run = field(compare=False)
    info: TrainInfo = field(compare=False)
    weights: Path
    view: ViewSpec
    stats: Any
    decoded: str = ""

    def model(self) -> Callable[[Tensor], Tensor]:
        """Return the function of loaded views, (B, *S, C), to predictions, (B, classes) or (B, T, D)."""
        method = restored(self.run, self.info, self.weights)
        seen = seen_by(method, self.view, self.stats)
        if self.decoded:
            return lambda raw: method.decoded_map(self.decoded, seen(raw))
        return lambda raw: method.predict(seen(raw))


def restored(run: Run, info: TrainInfo, weights: Path, teacher: TrainedMethod | None = None) -> Method:
    """Return a trained objective, on the device that it is put on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = build(run, info, torch.device("cpu"), teacher=teacher)
    tensors.fill(method, weights)
    return method.to(device).eval()


def seen_by(method: Method, view: ViewSpec, stats: Any) -> Callable[[Tensor], Tokens | Tensor]:
    """Return the function of loaded views, (B, *S, C), to what the encoder of their modality sees."""
    model = PretrainedEncoder(method.encoder(view.modality), view, stats)
    device = next(method.parameters()).device
    return lambda raw: model.view_of(raw.to(device))
