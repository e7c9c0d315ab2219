"""MAE, SimSiam, TiCo, PixPro, DeepCluster, SeLa, OBoW and labels, at the settings of their recipes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.train import step_seed

from .authors import adamw, copied, cosine, lars, learn, named, on_gpus, sgd, to_one, trained, warm
from .ours import Trained
from .recipes import of_recipe

ENCODER = {"backbone": "encoders.image"}
HEADS = ENCODER | {"projector": "projector"}


def mae(method: Method, batches: list[Batch]) -> Trained:
    """Hidden patches by their own mean and deviation; all but biases and norms decay."""
    names = ENCODER | {"decoder": "decoder"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens, mask = batch.views[0].value, batch.views[0].mask
        decoded = student["decoder"](student["backbone"](tokens, mask.keep), mask)[:, mask.keep.shape[1] :]
        hidden = torch.stack([rows[at] for rows, at in zip(tokens.value, mask.hide, strict=True)])
        target = (hidden - hidden.mean(2, keepdim=True)) / (hidden.var(2, keepdim=True) + 1e-6).sqrt()
        return (student["decoder"].paint(decoded) - target).square().mean(dim=2).mean()

    decay = lambda _, name, weight: 0.05 * (weight.ndim > 1 and not name.endswith("bias"))  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-4 * 16), decay, betas=(0.9, 0.95)))
    return trained(losses, named(student, names))


def simsiam(method: Method, batches: list[Batch]) -> Trained:
    """The predictor's rate stays at its peak; all weights decay."""
    names = HEADS | {"predictor": "predictor"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        z = [student["projector"](student["backbone"].pooled(view.value)) for view in batch.views]
        p = [F.normalize(student["predictor"](view), dim=1) for view in z]
        z = [F.normalize(view.detach(), dim=1) for view in z]
        return -(p[0] * z[1] + p[1] * z[0]).sum(dim=1).mean() / 2

    rate = lambda step, name: 0.1 if name.startswith("predictor") else cosine(step, 0.1, 0.0)  # noqa: E731
    losses, _ = learn(student, loss, batches, sgd(student, rate, decay=1e-4))
    return trained(losses, named(student, names))


def tico(method: Method, batches: list[Batch]) -> Trained:
    """The paper's loss, with the covariance held still, and BYOL's optimizer and momentum."""
    keys = {"backbone": "key", "projector": "key_projector"}
    student, covariance = copied(method, HEADS), method.covariance.clone()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        query, key = (
            F.normalize(network["projector"](network["backbone"].pooled(view.value)), dim=1)
            for network, view in zip((student, teacher), batch.views, strict=True)
        )
        covariance.mul_(0.9).add_(0.1 * query.detach().T @ query.detach() / 8)
        return (
            1
            - (query * key).sum(dim=1).mean()
            + 8 * torch.einsum("nd,de,ne->n", query, covariance.clone(), query).mean()
        )

    move = lars(student, "byol", warm(0.2 * 16), decay=1.5e-6)
    losses, teacher = learn(student, loss, batches, move, momentum=to_one(0.996))
    return trained(losses, named(student, HEADS) | named(teacher, keys) | {"covariance": covariance})


def centers(box: Tensor) -> tuple[Tensor, Tensor]:
    """(7,) -> (4, 2), (): the middles of 2 by 2 places, from 0 to 1 over an image, and the diagonal of a place."""
    top, left, height, width, mirrored, rows, columns = box.tolist()
    down, across = (height - 1) / (rows - 1) / 2, (width - 1) / (columns - 1) / 2
    order = (1, 0) if mirrored else (0, 1)
    middles = [
        (top / (rows - 1) + (y + 0.5) * down, left / (columns - 1) + (x + 0.5) * across) for y in (0, 1) for x in order
    ]
    return torch.tensor(middles, dtype=torch.float64), torch.tensor(math.hypot(down, across), dtype=torch.float64)


def pixpro(method: Method, batches: list[Batch]) -> Trained:
    """Near places agree, those of the student after propagation."""
    names, targets = HEADS | {"transform": "transform"}, {"backbone": "target", "projector": "target_projector"}
    student = copied(method, names)

    def mapped(network: nn.ModuleDict, batch: Batch) -> list[Tensor]:
        places = [network["backbone"].spatial(view.value).flatten(2).mT for view in batch.views]
        return [network["projector"](view.flatten(0, 1)).view(8, 4, -1) for view in places]

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        x, z = mapped(student, batch), [F.normalize(view, dim=2) for view in mapped(teacher, batch)]
        unit = [F.normalize(view, dim=2) for view in x]
        weight = [(view @ view.mT).clamp(min=0) ** 2 for view in unit]
        pairs = zip(weight, x, strict=True)
        y = [F.normalize(w @ F.normalize(student["transform"](view), dim=2), dim=2) for w, view in pairs]
        total = torch.zeros((), dtype=torch.float64)
        for sample, boxes in enumerate(zip(*(view.box for view in batch.views), strict=True)):
            (one, first), (two, second) = map(centers, boxes)
            near = (one[:, None] - two).norm(dim=2) / torch.maximum(first, second) < 0.7
            for alike in (y[0][sample] @ z[1][sample].T, z[0][sample] @ y[1][sample].T) if near.any() else ():
                total = total - 2 * alike[near].mean() / 8
        return total

    move = lars(student, "byol", warm(4.0, begin=0.04, end=1e-6), decay=1e-5)
    losses, teacher = learn(student, loss, batches, move, momentum=to_one(0.99))
    return trained(losses, named(student, names) | named(teacher, targets))


def spherical(rows: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Ten rounds of k-means on the unit sphere; a cluster without rows stays."""
    for _ in range(10):
        nearest = (rows @ start.T).argmax(dim=1)
        members = [rows[nearest == number] for number in range(len(start))]
        start = torch.stack(
            [F.normalize(own.sum(dim=0), dim=0) if len(own) else old for own, old in zip(members, start, strict=True)]
        )
    return start, (rows @ start.T).argmax(dim=1)


def deepcluster(method: Method, batches: list[Batch]) -> Trained:
    """The first of five epochs only fills the banks; after each of them both crops are clustered, the first twice."""
    student, banks = on_gpus(copied(method, HEADS)), [torch.zeros(8, 128, dtype=torch.float64) for _ in range(2)]
    centroids, labels = method.centroids.clone(), method.labels.clone()

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        sizes = batch.views[:2], batch.views[2:]
        pooled = [student["backbone"].pooled(torch.cat([view.value for view in views])) for views in sizes]
        z = F.normalize(student["projector"](torch.cat(pooled)), dim=1)
        logs = [(z @ rows.T / 0.1).log_softmax(dim=1) for rows in centroids.clone()]
        total = -torch.stack(
            [log[range(32), own.repeat(4)].mean() for log, own in zip(logs, labels, strict=True)]
        ).mean()
        for bank, rows in zip(banks, z.detach().split(8), strict=False):
            bank.copy_(rows)
        if step % 2:
            torch.manual_seed(step_seed(0, step, 0))
            for head in range(3):
                start = banks[head % 2][torch.randperm(8)[:4]]
                centroids[head], labels[head] = spherical(banks[head % 2], start)
        return total

    rate = warm(4.8, begin=0.3, end=4.8e-3)
    move = lars(student, "larc", rate, decay=1e-6, waits=lambda _, step: step < 2)
    losses, _ = learn(student, loss, batches, move)
    buffers = {"centroids": centroids, "labels": labels, "banks.0.rows": banks[0], "banks.1.rows": banks[1]}
    return trained(losses, named(student, HEADS) | buffers)


def transport(logs: Tensor) -> Tensor:
    """(N, K) -> (N,): Sinkhorn and Knopp's labels; every tenth round asks for a change of scales below 0.1."""
    power = (25 * logs).exp()
    sample, done, error = torch.full((8,), 1 / 8, dtype=power.dtype), 0, math.inf
    while error >= 0.1:
        cluster = 1 / (4 * power.T @ sample)
        new = 1 / (8 * power @ cluster)
        error = (sample / new - 1).abs().sum().item() if done % 10 == 0 else error
        sample, done = new, done + 1
    return (power * cluster).argmax(dim=1)


def sela(method: Method, batches: list[Batch]) -> Trained:
    """The first of five epochs only gathers features; labels are found anew after 2, 3, 4, 5, 6 and 8 steps."""
    names = ENCODER | {"classifiers": "classifiers"}
    student, labels, bank = on_gpus(copied(method, names)), method.labels.clone(), []

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        if step in (2, 3, 4, 5, 6, 8):
            with torch.no_grad():
                scores = student["classifiers"](bank[-1]).view(8, 3, 4).log_softmax(dim=2)
            labels.copy_(torch.stack([transport(scores[:, head]) for head in range(3)], dim=1))
        features = student["backbone"].pooled(batch.views[0].value)
        bank.append(features.detach())
        logs = student["classifiers"](features).view(24, 4).log_softmax(dim=1)
        return -logs[range(24), labels.flatten()].mean()

    def rate(step: int, _: str) -> float:
        return 0.08 * 0.1 ** sum(step / 10 >= drop for drop in (0.37562, 0.74875, 0.87313))

    losses, _ = learn(student, loss, batches, sgd(student, rate, decay=1e-5, waits=lambda _, step: step < 2))
    return trained(losses, named(student, names) | {"labels": labels, "bank.rows": bank[-1]})


def obow(method: Method, batches: list[Batch]) -> Trained:
    """Bags of the words of two stages; a word of each image joins the vocabularies."""
    names = ENCODER | {"generator0": "generators.0", "generator1": "generators.1"}
    student, spread = copied(method, names), [0.5, 0.5]
    words = [queue.rows.clone() for queue in method.vocabularies]

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        sizes = batch.views[1:3], batch.views[3:]
        seen = [student["backbone"].pooled(torch.cat([view.value for view in views])) for views in sizes]
        total = torch.zeros((), dtype=torch.float64)
        for level, maps in enumerate(teacher["backbone"].stages(batch.views[0].value)[-2:]):
            apart = (maps.flatten(2).mT[:, :, None] - words[level]).square().sum(dim=3)
            spread[level] = 0.99 * spread[level] + 0.01 * apart.amin(dim=2).mean().item()
            bag = (-apart * 15 / spread[level]).softmax(dim=2).amax(dim=1)
            bag = bag / bag.sum(dim=1, keepdim=True)
            weights = F.normalize(student[f"generator{level}"](F.normalize(words[level], dim=1)), dim=1)
            for features in seen:
                logs = (8 * features @ weights.T).log_softmax(dim=1)
                total = total - (bag.repeat(len(logs) // 8, 1) * logs).sum(dim=1).mean() / 2
            means = F.avg_pool2d(maps, min(3, maps.shape[2]), stride=1).flatten(2)
            drawn = [
                mean[:, int(draw * means.shape[2])] for mean, draw in zip(means, batch.draws[:, level], strict=True)
            ]
            words[level] = words[level].clone()
            words[level][[(8 * step + number) % 12 for number in range(8)]] = torch.stack(drawn)
        return total

    rate = warm(0.03, end=3e-5)
    move = sgd(student, lambda step, _: rate(step), decay=1e-4)
    losses, teacher = learn(student, loss, batches, move, momentum=to_one(0.99))
    buffers = {f"vocabularies.{level}.rows": rows for level, rows in enumerate(words)}
    return trained(losses, named(student, names) | {"teacher": teacher["backbone"]} | buffers)


def supervised(method: Method, batches: list[Batch]) -> Trained:
    """Matrices decay; the rate rises from 0.1 and is divided by ten three times."""
    names = ENCODER | {"head": "head"}
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        logits = student["head"](student["backbone"].pooled(batch.views[0].value))
        return -logits.log_softmax(dim=1)[range(8), batch.label].mean()

    def rate(step: int, _: str) -> float:
        return 0.1 + 0.3 * (step + 1) / 2 if step < 2 else 0.4 * 0.1 ** ((step >= 4) + (step >= 7) + (step >= 9))

    losses, _ = learn(student, loss, batches, sgd(student, rate, decay=1e-4, least=2))
    return trained(losses, named(student, names))


LOOPS = {
    "mae": of_recipe("mae", mae, "vit", decoder_width=32, decoder_depth=2, decoder_heads=4),
    "simsiam": of_recipe("simsiam", simsiam),
    "tico": of_recipe("tico", tico),
    "pixpro": of_recipe("pixpro", pixpro, hidden=64),
    "deepcluster": of_recipe("deepcluster", deepcluster),
    "sela": of_recipe("sela", sela),
    "obow": of_recipe("obow", obow, local_crops=2),
    "supervised": of_recipe("supervised", supervised),
}
