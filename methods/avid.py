"""AVID: a clip finds its own sound in a memory of all sounds, and a sound its own clip in a memory of all clips.

Morgado, Vasconcelos and Misra, "Audio-visual instance discrimination with cross-modal agreement", CVPR 2021,
arXiv:2004.12943. Defaults are the paper's; targets: its Cross-, Self- and Joint-AVID. As in the authors' code, an entry
is told from noise with a constant normalizer, that of the first step (section 3.1), and projections are of three
layers. A clip of the spec's samples is heard as long as `input.audio` says, about its middle.

With `agreement` it is AVID-CMA (section 4), the second stage, which goes on with all weights and memories of the first
by the spec's `start`: within each modality, a sample is to find those whose clip and whose sound are both like its own.

Deviations from the authors' code: the negatives of a sample are evenly spaced entries of the memory from a random one
on, not drawn one by one. Sounds are log-mel spectrograms. Samples that agree are those of the memories as they are at
each step, where the code finds them four times in the second stage.

N: batch, D: channels of the joint space, S: samples of the data set, P: those that agree with one, K: negatives.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.bank import Bank
from selfsup.parts.contrastive import entry_scores, even_score, noise_nce
from selfsup.parts.heads import mlp
from selfsup.parts.precision import no_autocast
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views

AGREEMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "both": torch.minimum,
    "either": torch.maximum,
    "sight": lambda sight, _: sight,
    "sound": lambda _, sound: sound,
}  # of cosines, (N, S) each


@final
class AVID(Method):
    """Sight and sound of a sample are told from those of others, each by what is remembered of the other."""

    paper, family, modalities, beside = "2004.12943", "cross-modal", ("image", "video"), ("audio",)
    heads: Any  # of each modality, as the memories
    memories: Any
    mean: Tensor  # () mean probability of the first step's negatives, as a score; infinite before it

    class Hyper(Knobs):
        targets: Literal["cross", "self", "joint"] = knob(
            "cross", "memory of the other modality, of its own, or both", sweep=Choice("cross", "self", "joint")
        )
        agreement: Literal["both", "either", "sight", "sound"] | None = knob(
            None,
            "where samples are alike that are to find each other, too: in sight and sound, or in one; null: none are",
            sweep=Choice("both", "sight", "sound"),
        )
        positives: int = knob(32, "samples that agree with one", symbol="P", sweep=Choice(8, 32, 128), gt=0)
        within: int = knob(64, "entries that these are told from, at most K", sweep=Choice(64, 1024), gt=0)
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

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.agreement is None:
            for name in ("positives", "within"):
                yield from checks.idle(hyper, name, "agreement")
        elif info and hyper.positives > info.num_samples - 2:
            message = f"{hyper.positives} of {info.num_samples} samples leave no other than one and these: take fewer"
            yield SpecError(message, "hyper.positives", "data.train")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        widths = hyper.hidden, hyper.hidden, hyper.dim
        heads = {name: mlp(tower.dim, *widths, norm=False, out="bias") for name, tower in encoders.items()}
        self.heads = nn.ModuleDict(heads)
        self.memories = nn.ModuleDict({name: Bank(info.num_samples, hyper.dim) for name in encoders})
        self.register_buffer("mean", torch.full((), torch.inf))
        seen, heard = encoders
        cross, same = [(seen, heard), (heard, seen)], [(seen, seen), (heard, heard)]
        self.hyper, self.pairs = hyper, {"cross": cross, "self": same, "joint": cross + same}[hyper.targets]

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        encoder: Encoder = self.encoders[modality]  # type: ignore[assignment]  # of a ModuleDict
        embedded: Tensor = self.heads[modality](encoder.pooled(view))
        return F.normalize(embedded.float(), dim=1)

    def forward(self, batch: Batch) -> Out:
        unit = {view.modality: self.joint(view.modality, view.value) for view in batch.views}
        alike = self._alike(batch.sample)
        others = self._others(batch, alike)
        chosen = torch.cat([batch.sample[:, None], others], dim=1)
        scores = {f"{own}_to_{other}_loss": self._scores(unit[own], other, chosen) for own, other in self.pairs}
        first = next(iter(scores.values()))[:, 1:]
        mean = torch.where(self.mean.isinf(), even_score(first, 1), self.mean)
        losses = {name: noise_nce(score, mean + math.log(others.shape[1])) for name, score in scores.items()}
        if self.hyper.agreement:
            losses |= self._agreed(unit, alike, others[:, : self.hyper.within], mean)
        aux = {"sample": batch.sample, **unit, "mean": mean.expand(len(first))}
        return Out(torch.stack([*losses.values()]).mean(), losses, aux)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        for name, memory in self.memories.items():
            memory.put(aux["sample"], aux[name], momentum=self.hyper.momentum)
        self.mean.copy_(aux["mean"][0])

    def _scores(self, unit: Tensor, memory: str, chosen: Tensor) -> Tensor:
        """(N, D), (N, C) int64 -> (N, C): cosines with these entries of a memory, over τ"""
        return entry_scores(unit, self.memories[memory].rows[chosen], temperature=self.hyper.temperature)

    def _agreed(self, unit: Mapping[str, Tensor], alike: Tensor, others: Tensor, mean: Tensor) -> dict[str, Tensor]:
        """-> () of each modality: how samples that agree with one are told from others"""
        chosen, even = torch.cat([alike, others], dim=1), mean + math.log(others.shape[1])
        scores = {name: self._scores(own, name, chosen) for name, own in unit.items()}
        return {f"{name}_agreement_loss": noise_nce(own, even, alike.shape[1]) for name, own in scores.items()}

    @torch.no_grad()
    def _alike(self, sample: Tensor) -> Tensor:
        """(N,) -> (N, P): the numbers of the samples that agree most with each; none without `agreement`"""
        if self.hyper.agreement is None:
            return sample.new_empty(len(sample), 0)
        with no_autocast(self.mean):
            sight, sound = (memory.rows[sample] @ memory.rows.T for memory in self.memories.values())
        similar = AGREEMENTS[self.hyper.agreement](sight, sound).scatter(1, sample[:, None], -torch.inf)
        return similar.topk(self.hyper.positives, dim=1).indices

    def _others(self, batch: Batch, alike: Tensor) -> Tensor:
        """(N, P) -> (N, K): the numbers of others than each sample and those that agree with it"""
        left_out = torch.cat([batch.sample[:, None], alike], dim=1).sort(dim=1).values
        rest = len(next(iter(self.memories.values())).rows) - left_out.shape[1]
        number = min(self.hyper.negatives, rest)
        spread = torch.arange(number, device=alike.device) * (rest // number)
        rank = ((batch.draws * rest).long() + spread) % rest
        before = left_out - torch.arange(left_out.shape[1], device=alike.device)  # how many of the rest are
        return rank + torch.searchsorted(before, rank, right=True)
