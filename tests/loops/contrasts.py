"""NNCLR, E-SSL, DenseCL, PIRL and AMDIM, at the settings of their recipes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import adamw, copied, cosine, lars, learn, named, on_gpus, sgd, trained, warm
from .ours import Trained
from .recipes import of_recipe

ENCODER = {"backbone": "encoders.image"}
HEADS = ENCODER | {"projector": "projector"}


def cross_entropy(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """(N, D), (N, D) -> (): each row picks its own column, by their cosines."""
    logits = F.normalize(rows, dim=1) @ F.normalize(columns, dim=1).T / temperature
    return -logits.log_softmax(dim=1).diagonal().mean()


def nnclr(method: Method, batches: list[Batch]) -> Trained:
    """Algorithm 1: neighbors in a queue of first views pick the predictions of the others."""
    names, queue = HEADS | {"predictor": "predictor"}, method.queue.rows.clone()
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        z = [student["projector"](student["backbone"].pooled(view.value)) for view in batch.views]
        near = [queue[torch.cdist(F.normalize(view.detach(), dim=1), queue).argmin(dim=1)] for view in z]
        second, first = (student["predictor"](view) for view in reversed(z))
        queue[8 * step % 32 : 8 * step % 32 + 8] = F.normalize(z[0].detach(), dim=1)
        return (cross_entropy(near[0], second, 0.1) + cross_entropy(near[1], first, 0.1)) / 2

    losses, _ = learn(student, loss, batches, lars(student, "byol", warm(0.3 * 16), decay=1e-6))
    return trained(losses, named(student, names) | {"queue.rows": queue})


def essl(method: Method, batches: list[Batch]) -> Trained:
    """Views pick each other out of the other views alone; small crops are turned four times."""
    names = HEADS | {"predictor": "predictor"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        a, b = (student["projector"](student["backbone"].pooled(view.value)) for view in batch.views[:2])
        crops = torch.cat([torch.rot90(batch.views[2].value, turn, (2, 3)) for turn in range(4)])
        logs = student["predictor"](student["backbone"].pooled(crops)).log_softmax(dim=1).view(4, 8, 4)
        rotation = -torch.stack([logs[turn, :, turn] for turn in range(4)]).mean()
        return (cross_entropy(a, b, 0.2) + cross_entropy(b, a, 0.2)) / 2 + 0.4 * rotation

    losses, _ = learn(student, loss, batches, lars(student, "byol", warm(0.3 * 16, end=4.8e-3), decay=1e-6))
    return trained(losses, named(student, names))


def densecl(method: Method, batches: list[Batch]) -> Trained:
    """MoCo v2 on images and on places, each matched with the other view's place of the most similar features."""
    names = HEADS | {"dense": "dense_projector"}
    keys = {"backbone": "key", "projector": "key_projector", "dense": "key_dense_projector"}
    student, teacher = on_gpus(copied(method, names)), copied(method, keys)
    queue, dense_queue = method.queue.rows.clone(), method.dense_queue.rows.clone()

    def contrast(query: Tensor, key: Tensor, rows: Tensor) -> Tensor:
        scores = torch.cat([(query * key).sum(dim=-1, keepdim=True), query @ rows.T.clone()], dim=-1) / 0.2
        return -scores.log_softmax(dim=-1)[..., 0].mean()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        images, others = (view.value for view in batch.views)
        seen = student["backbone"].spatial(images).flatten(2).mT
        query, dense = (F.normalize(x, dim=-1) for x in (student["projector"](seen.mean(1)), student["dense"](seen)))
        with torch.no_grad():
            groups = [teacher["backbone"].spatial(others[part::2]) for part in (0, 1)]
            places = torch.stack(groups, dim=1).flatten(0, 1).flatten(2).mT
            key, dense_key = teacher["projector"](places.mean(1)), teacher["dense"](places)
            best = (F.normalize(seen, dim=2) @ F.normalize(places, dim=2).mT).argmax(dim=2)
        matched = torch.stack([F.normalize(rows[at], dim=1) for rows, at in zip(dense_key, best, strict=True)])
        total = (contrast(query, F.normalize(key, dim=1), queue) + contrast(dense, matched, dense_queue)) / 2
        where = slice(8 * step % 32, 8 * step % 32 + 8)
        queue[where], dense_queue[where] = F.normalize(key, dim=1), F.normalize(dense_key.mean(1), dim=1)
        return total

    move = sgd(student, lambda step, _: cosine(step, 0.03, 0.0), decay=1e-4)
    losses, _ = learn(student, loss, batches, move, teacher=teacher, momentum=lambda _: 0.999)
    queues = {"queue.rows": queue, "dense_queue.rows": dense_queue}
    return trained(losses, named(student, names) | named(teacher, keys) | queues)


def pirl(method: Method, batches: list[Batch]) -> Trained:
    """Rotations, by the code's estimate against noise, whose normalizer is that of the first batch."""
    names, memory, even = HEADS | {"other": "other"}, method.memory.rows.clone(), []
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        image = student["projector"](student["backbone"].pooled(batch.views[0].value))
        quarters = (4 * batch.draws[:, 1]).int().tolist()
        pairs = zip(batch.views[1].value, quarters, strict=True)
        turned = torch.stack([torch.rot90(value, number, (1, 2)) for value, number in pairs])
        changed = student["other"](student["backbone"].pooled(turned))
        rows = [(int(8 * batch.draws[0, 0]) + number) % 8 for number in range(5)]
        entries = torch.cat([memory[:, None], memory[rows].expand(8, 5, -1)], dim=1)
        scores = [(entries @ F.normalize(x, dim=1)[..., None])[..., 0] / 0.07 for x in (changed, image)]
        if not even:
            even.append(5 * scores[0].detach().exp().mean())  # K / n times Z
        terms = []
        for score in scores:
            share = score.exp() / (score.exp() + even[0])
            terms.append(-(share[:, 0].log() + (1 - share[:, 1:]).log().sum(dim=1)).mean())
        memory.copy_(F.normalize(memory / 2 + F.normalize(image.detach(), dim=1) / 2, dim=1))
        return (terms[0] + terms[1]) / 2

    move = sgd(student, lambda step, _: cosine(step, 0.12, 1.2e-4), decay=1e-4, least=2)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names) | {"memory.rows": memory, "even": even[0].log()})


def amdim(method: Method, batches: list[Batch]) -> Trained:
    """Each antecedent picks the places of its own image; Adam's decay is AdamW's here, and the rate drops twice."""
    names = ENCODER | {name: name for name in ("whole", "coarse", "fine")}
    student = copied(method, names)

    def contrast(antecedent: Tensor, places: Tensor) -> Tensor:
        raw = torch.einsum("nd,mpd->nmp", antecedent, places) / math.sqrt(24)
        scores, own = (20 * torch.tanh(raw / 20)).exp(), torch.arange(8)
        others = scores.sum(dim=(1, 2)) - scores[own, own].sum(dim=1)
        picked = scores[own, own] / (scores[own, own] + others[:, None])
        return -picked.log().mean() + 0.05 * raw.square().mean()

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        features, draws = [], batch.draws
        for view in batch.views:
            images = [
                image.flip(2) if draw < 0.5 else image for image, draw in zip(view.value, draws[:, 2], strict=True)
            ]
            *_, fine, coarse = student["backbone"].stages(torch.stack(images))
            whole = student["whole"](coarse.mean((2, 3)))
            maps = {"coarse": coarse.flatten(2).mT, "fine": fine.flatten(2).mT}  # 2 by 2 and 4 by 4: taken as they are
            features.append([whole, *(student[key](x.flatten(0, 1)).view(8, -1, 24) for key, x in maps.items())])
        total = torch.zeros((), dtype=torch.float64)
        for number, ((whole, coarse, _), (_, *others)) in enumerate(zip(features, features[::-1], strict=True)):
            one = coarse[torch.arange(8), (4 * draws[:, number]).long()]
            total = total + contrast(whole, others[0]) + contrast(whole, others[1]) + contrast(one, others[0])
        return total / 2

    def rate(step: int) -> float:
        return 2e-4 * ((step + 1) / 2 if step < 2 else 0.2 ** ((step >= 6) + (step >= 9)))

    losses, _ = learn(student, loss, batches, adamw(student, rate, lambda *_: 1e-5, betas=(0.8, 0.999)))
    return trained(losses, named(student, names))


LOOPS = {
    "nnclr": of_recipe("nnclr", nnclr),
    "essl": of_recipe("essl", essl),
    "densecl": of_recipe("densecl", densecl),
    "pirl": of_recipe("pirl", pirl, pretext="rotation"),
    "amdim": of_recipe("amdim", amdim),
}
