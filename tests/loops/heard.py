"""AVID and GDT as their authors train them, and ImageBind by its paper, at the settings of their recipes."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch, View
from selfsup.method import Method
from selfsup.parts.patch import patchify, pixels

from .authors import adamw, copied, learn, named, sgd, trained, warm
from .ours import Trained
from .recipes import of_recipe

TOWERS = {"image": "encoders.image", "audio": "encoders.audio"}
SMALL = {"negatives": 5, "hidden": 32, "dim": 16}


def surprise(right: Tensor, wrong: Tensor, mean: Tensor) -> Tensor:
    """(R,), (K,), () -> (): how unlikely it is that some scores are of data, on average, and others of noise."""
    noise = len(wrong) * mean
    return -(right.exp() / (right.exp() + noise)).log().mean() - (noise / (wrong.exp() + noise)).log().sum()


def avid(method: Method, batches: list[Batch], *, rate: float, alike: int = 0, within: int = 0) -> Trained:
    """Sample by sample: its entry in the other's memory and those of others, by probabilities of data and of noise.

    alike: samples that agree with one, by the lesser of their cosines in both memories. within: how many of the others
    they are told from in each modality.
    """
    names = TOWERS | {"heads": "heads"}
    student, mean = copied(method, names), list[Tensor]()
    memory = {name: method.memories[name].rows.clone() for name in TOWERS}

    def drawn(own: int, draw: float) -> tuple[list[int], list[int]]:
        rest = [number for number in range(8) if number != own]
        least = [min(float(rows[own] @ rows[number]) for rows in memory.values()) for number in rest]
        agreed = [number for _, number in sorted(zip(least, rest, strict=True), reverse=True)][:alike]
        rest = [number for number in rest if number not in agreed]
        number, begin = min(5, len(rest)), int(len(rest) * draw)
        return agreed, [rest[(begin + place * (len(rest) // number)) % len(rest)] for place in range(number)]

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        unit = {
            view.modality: F.normalize(student["heads"][view.modality](student[view.modality].pooled(view.value)))
            for view in batch.views
        }
        chosen = [drawn(own, draw) for own, draw in enumerate(batch.draws[:, 0].tolist())]
        scores = {
            query: [(memory[key][[own, *wrong]] @ unit[query][own]) / 0.07 for own, (_, wrong) in enumerate(chosen)]
            for query, key in (("image", "audio"), ("audio", "image"))
        }
        if not mean:
            mean.append(torch.stack(scores["image"])[:, 1:].detach().exp().mean())
        terms = [torch.stack([surprise(own[:1], own[1:], mean[0]) for own in rows]).mean() for rows in scores.values()]
        for name, vectors in unit.items():
            if alike:
                own = []
                for vector, (agreed, wrong) in zip(vectors, chosen, strict=True):
                    right, rest = (memory[name][rows] @ vector / 0.07 for rows in (agreed, wrong[:within]))
                    own.append(surprise(right, rest, mean[0]))
                terms.append(torch.stack(own).mean())
        for name, rows in memory.items():
            rows.copy_(F.normalize(rows / 2 + unit[name].detach() / 2, dim=1))
        return torch.stack(terms).mean()

    losses, _ = learn(student, loss, batches, adamw(student, lambda _: rate, lambda *_: 1e-5))
    memories = {f"memories.{name}.rows": rows for name, rows in memory.items()}
    return trained(losses, named(student, names) | memories | {"mean": mean[0].log()})


def imagebind(method: Method, batches: list[Batch]) -> Trained:
    """Equation 1 of the paper, in both directions."""
    names = TOWERS | {"projections": "projections"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        image, sound = (
            F.normalize(student["projections"][view.modality](student[view.modality].pooled(view.value)))
            for view in batch.views
        )
        similar = (20 * image @ sound.T).exp()
        there, back = similar.diagonal() / similar.sum(1), similar.diagonal() / similar.sum(0)
        return -(there.log() + back.log()).mean() / 2

    def clip() -> None:
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)

    move = adamw(student, warm(1.6e-3), lambda _, __, weight: 0.2 * (weight.ndim > 1), betas=(0.9, 0.95), clip=clip)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def gdt(method: Method, batches: list[Batch]) -> Trained:
    """Cross-entropy among the sounds of all samples and all four transformations, and the same of clips, by SGD."""
    names = {"video": "encoders.video", "audio": "encoders.audio", "heads": "heads"}
    student = copied(method, names)

    def embedded(student: nn.ModuleDict, view: View) -> list[Tensor]:
        encoder, head = student[view.modality], student["heads"][view.modality]
        points = pixels(view.value, encoder.patch)
        orders = points, torch.stack(points.unbind(2)[::-1], dim=2)
        return [F.normalize(head(encoder.pooled(patchify(order, encoder.patch)))) for order in orders]

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        clips, sounds = (
            torch.cat([row for view in batch.views if view.modality == name for row in embedded(student, view)])
            for name in ("video", "audio")
        )
        own = torch.arange(4 * 8)
        there, back = clips @ sounds.detach().T, sounds @ clips.detach().T
        return (F.cross_entropy(there / 0.07, own) + F.cross_entropy(back / 0.07, own)) / 2

    rate = warm(0.16, begin=0.01, end=0.16)
    losses, _ = learn(student, loss, batches, sgd(student, lambda step, _: rate(step), decay=1e-5))
    return trained(losses, named(student, names))


LOOPS = {
    "avid": of_recipe("audioset_clips/avid", partial(avid, rate=5e-4), "vit", **SMALL),
    "avid_cma": of_recipe(
        "audioset_clips/avid_cma",
        partial(avid, rate=1e-4, alike=2, within=3),
        "vit",
        **SMALL | {"positives": 2, "within": 3},
    ),
    "gdt": of_recipe("audioset_clips/gdt", gdt, "vit", hidden=32, dim=16),
    "imagebind": of_recipe("audioset_clips/imagebind", imagebind, "vit", dim=16),
}
