"""AVID: a clip finds its own sound in a memory of all sounds, and a sound its own clip in a memory of all clips.

Morgado, Vasconcelos and Misra, "Audio-visual instance discrimination with cross-modal agreement", CVPR 2021,
arXiv:2004.12943. Defaults are the paper's; targets: its Cross-, Self- and Joint-AVID. As in the authors' code, an entry
is told from noise with a constant normalizer, that of the first step (section 3.1), and projections are of three
layers. A clip of the spec's samples is heard as long as `input.audio` says, about its middle.

Deviations from the authors' code: the negatives of a sample are evenly spaced entries of the memory from a random one
on, not drawn one by one. Sounds are log-mel spectrograms. Cross-modal agreement, the second stage, is not here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.bank import Bank
from selfsup.parts.contrastive import entry_scores, even_score, noise_nce
from selfsup.parts.heads import mlp
from selfsup.parts.tokens import Tokens
from selfsup.views import Beside, Crop, Views


@final
class AVID(Method):
    """Sight and sound of a sample are told from those of others, each by what is remembered of the other."""

    paper, family, modalities, beside = "2004.12943", "cross-modal", ("image", "video"), ("audio",)
    heads: Any  # of each modality, as the memories
    memories: Any
    even: Tensor  # () of `noise_nce`: infinite before the first step, then that of its batch

    class Hyper(Knobs):
        targets: Literal["cross", "self", "joint"] = knob(
            "cross", "memory of the other modality, of its own, or both", sweep=Choice("cross", "self", "joint")
        )
        temperature: float = knob(0.07, "of scores", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        negatives: int = knob(1024, "entries of other samples", symbol="K", sweep=Choice(256, 1024, 4096), gt=0)
        momentum: float = knob(0.5, "of an entry of the memory", sweep=Choice(0.0, 0.5, 0.9), ge=0, lt=1)
        hidden: int = knob(512, "width of the projections' hidden layers", gt=0)
        dim: int = knob(128, "channels of the space that both are compared in", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        jitter: float = knob(1.0, "share of samples whose colors change", sweep=Choice(0.0, 1.0), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        plain = Crop(scale=(hyper.crop_min, 1), resample="bilinear")
        crop = replace(plain, jitter=hyper.jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
        return Views((crop, Beside(field="audio", of=0)), draws=1)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        widths = hyper.hidden, hyper.hidden, hyper.dim
        heads = {name: mlp(tower.dim, *widths, norm=False, out="bias") for name, tower in encoders.items()}
        self.heads = nn.ModuleDict(heads)
        self.memories = nn.ModuleDict({name: Bank(info.num_samples, hyper.dim) for name in encoders})
        self.register_buffer("even", torch.full((), torch.inf))
        seen, heard = encoders
        cross, same = [(seen, heard), (heard, seen)], [(seen, seen), (heard, heard)]
        self.hyper, self.pairs = hyper, {"cross": cross, "self": same, "joint": cross + same}[hyper.targets]

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        encoder: Encoder = self.encoders[modality]  # type: ignore[assignment]  # of a ModuleDict
        embedded: Tensor = self.heads[modality](encoder.pooled(view))
        return F.normalize(embedded.float(), dim=1)

    def forward(self, batch: Batch) -> Out:
        unit = {view.modality: self.joint(view.modality, view.value) for view in batch.views}
        entries = {name: memory.rows[self._chosen(batch)] for name, memory in self.memories.items()}
        scores = {
            f"{query}_to_{memory}_loss": entry_scores(unit[query], entries[memory], temperature=self.hyper.temperature)
            for query, memory in self.pairs
        }
        first = next(iter(scores.values()))[:, 1:]
        even = torch.where(self.even.isinf(), even_score(first, first.shape[1]), self.even)
        losses = {name: noise_nce(score, even) for name, score in scores.items()}
        aux = {"sample": batch.sample, **unit, "even": even.expand(len(first))}
        return Out(torch.stack([*losses.values()]).mean(), losses, aux)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        for name, memory in self.memories.items():
            memory.put(aux["sample"], aux[name], momentum=self.hyper.momentum)
        self.even.copy_(aux["even"][0])

    def _chosen(self, batch: Batch) -> Tensor:
        """-> (N, 1 + K): the number of each sample, then those of others"""
        own, others = batch.sample[:, None], len(next(iter(self.memories.values())).rows) - 1
        number = min(self.hyper.negatives, others)
        spread = torch.arange(number, device=own.device) * (others // number)
        other = ((batch.draws * others).long() + spread) % others
        return torch.cat([own, other + (other >= own)], dim=1)
