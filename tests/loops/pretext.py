"""Pretext tasks and reconstructions of whole images, at the settings of their recipes."""

import copy
import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.patch import patchify, unpatchify

from .authors import adamw, copied, cosine, learn, named, on_gpus, sgd, trainable, trained, warm
from .ours import Trained
from .recipes import of_recipe

ENCODER = {"backbone": "encoders.image"}
MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)  # ImageNet's


def steps(begin: float, peak: float, *drops: float) -> Callable[[int, str], float]:
    """Return a rise over two steps, and a division by ten after each of these shares of ten."""

    def rate(step: int, _: str) -> float:
        if step < 2:
            return begin + (peak - begin) * (step + 1) / 2
        return peak * 0.1 ** sum(step / 10 >= drop for drop in drops)

    return rate


def rotation(method: Method, batches: list[Batch]) -> Trained:
    """All four turns of each image, by halves of eight images on two GPUs."""
    names = ENCODER | {"head": "head"}
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        images = batch.views[0].value
        left = images.flip(3).mT  # what was the right edge is on top
        turned = torch.cat([images, left, images.flip(2, 3), left.flip(2, 3)])
        logs = student["head"](student["backbone"].pooled(turned)).log_softmax(dim=1).view(4, 8, 4)
        return -torch.stack([logs[turn, :, turn] for turn in range(4)]).mean()

    move = sgd(student, steps(0.02, 0.2, 30 / 70, 50 / 70), decay=1e-4)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def gmml(method: Method, batches: list[Batch]) -> Trained:
    """Noise in groups of patches of both views, SiT's contrast, and each gradient clipped by itself."""
    names = ENCODER | {"painter": "painter", "projector": "projector"}
    student = copied(method, names)

    def seen(patches: Tensor, draws: Tensor, where: Tensor) -> Tensor:
        first, second = (draws * 2**24).tolist()
        mine = hashed(int(second) + 2**24)
        words = [hashed(hashed((n * 0x9E3779B9 + int(first)) % 2**32) ^ mine) for n in range(2 * 768)]
        radius, angle = torch.tensor([word // 2**8 / 2**24 for word in words], dtype=torch.float64).view(2, 16, 48)
        return torch.where(where[:, None], (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos(), patches)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        errors, vectors = [], []
        for view, draws in zip(batch.views, (batch.draws[:, :2], batch.draws[:, 2:]), strict=True):
            value, where = view.value.value, view.mask.where
            noisy = torch.stack([seen(*sample) for sample in zip(value, draws, where, strict=True)])
            features = student["backbone"](view.value._replace(value=noisy))
            errors.append((student["painter"](features[:, 1:]) - value)[where].abs().mean())
            vectors.append(F.normalize(student["projector"](features.mean(1)), dim=1))
        alike = torch.cat(vectors) @ torch.cat(vectors).T / 0.2
        alike = alike - torch.diag(torch.full((16,), torch.inf, dtype=alike.dtype))
        contrast = -alike.log_softmax(1)[range(16), [*range(8, 16), *range(8)]].mean()
        return sum(errors) / 2 + contrast

    def clip() -> None:
        for _, weight in trainable(student):
            weight.grad.mul_(min(1.0, 3 / (weight.grad.norm().item() + 1e-6)))

    decay = lambda step, _, weight: cosine(step, 0.04, 0.4) * (weight.ndim > 1)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(5e-4, end=1e-6), decay, clip=clip))
    return trained(losses, named(student, names))


def cut(images: Tensor, draws: Tensor, cell: int, piece: int, jitter: int) -> list[Tensor]:
    """(8, C, S, S), (8, 18) -> nine of (8, C, p, p)"""
    margin, found = (cell - piece - jitter) // 2, []
    for number in range(9):
        samples = []
        for image, own in zip(images, draws, strict=True):
            top = number // 3 * cell + margin + int(own[2 * number] * (jitter + 1))
            left = number % 3 * cell + margin + int(own[2 * number + 1] * (jitter + 1))
            samples.append(image[:, top : top + piece, left : left + piece])
        found.append(torch.stack(samples))
    return found


def own_scale(piece: Tensor) -> Tensor:
    deviation = (piece.var((1, 2, 3), correction=0, keepdim=True) + 1e-6).sqrt()
    return (piece - piece.mean((1, 2, 3), keepdim=True)) / deviation


def relative_position(method: Method, batches: list[Batch]) -> Trained:
    """Each neighbor before the piece in the middle, in all colors."""
    names = ENCODER | {"head": "head"}
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        found = [own_scale(piece) for piece in cut(batch.views[0].value, batch.draws, 12, 8, 2)]
        seen = student["backbone"].pooled(torch.cat(found)).chunk(9)
        pairs = [torch.cat([seen[number], seen[4]], dim=1) for number in (0, 1, 2, 3, 5, 6, 7, 8)]
        logs = student["head"](torch.cat(pairs)).log_softmax(dim=1).view(8, 8, 8)
        return -torch.stack([logs[place, :, place] for place in range(8)]).mean()

    move = sgd(student, steps(0.02, 0.2, 30 / 70, 50 / 70), decay=1e-4)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def jigsaw(method: Method, batches: list[Batch]) -> Trained:
    """Pieces are laid out in one of six orders, and their embeddings side by side."""
    names = ENCODER | {"embed": "embed", "head": "head"}
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        found = cut(batch.views[0].value, batch.draws, 12, 8, 4)
        seen = torch.stack(student["embed"](student["backbone"].pooled(torch.cat(found))).chunk(9))
        truth = [int(6 * draw) for draw in batch.draws[:, 18]]
        rows = [seen[method.orders[name].tolist(), sample].flatten() for sample, name in enumerate(truth)]
        return -student["head"](torch.stack(rows)).log_softmax(dim=1)[range(8), truth].mean()

    move = sgd(student, steps(0.025, 0.1, 30 / 105, 60 / 105, 90 / 105, 100 / 105), decay=1e-4, least=2)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def hashed(word: int) -> int:
    word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
    word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
    return word ^ (word >> 16)


def denoising(method: Method, batches: list[Batch]) -> Trained:
    """A quarter of the values of each image is lost, by words of 32 bits; the error is of all of them."""
    names = ENCODER | {"painter": "painter"}
    student = copied(method, names)

    def seen(patches: Tensor, draws: Tensor) -> Tensor:
        images, (first, second) = unpatchify(patches[None], grid=(4, 4), patch=4)[0], (draws * 2**24).tolist()
        mine = hashed(int(second) + 2**24)
        words = [hashed(hashed((n * 0x9E3779B9 + int(first)) % 2**32) ^ mine) for n in range(768)]
        return images * (torch.tensor(words).view(3, 16, 16) >= 2**30)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens = batch.views[0].value
        images = torch.stack([seen(*sample) for sample in zip(tokens.value, batch.draws, strict=True)])
        places = student["backbone"](patchify(images, 4))[:, 1:].mT.unflatten(2, (4, 4))
        return (patchify(student["painter"](places), 4).value - tokens.value).square().mean()

    decay = lambda _, name, weight: 0.05 * (weight.ndim > 1 and not name.endswith("bias"))  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-4 * 4), decay, betas=(0.9, 0.95)))
    return trained(losses, named(student, names))


def lab_of(images: Tensor) -> Tensor:
    """(B, 3, H, W), normalized by ImageNet's moments -> (B, H, W, 3), by scikit-image."""
    return torch.from_numpy(rgb2lab((images.movedim(1, 3) * STD + MEAN).clamp(0, 1).numpy()))


def image_of(lab: Tensor) -> Tensor:
    """(B, H, W, 3) -> (B, 3, H, W), normalized, by scikit-image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colors that are cut off
        rgb = torch.from_numpy(lab2rgb(lab.numpy()))
    return ((rgb - MEAN) / STD).movedim(3, 1)


def colorization(method: Method, batches: list[Batch]) -> Trained:
    """Five soft bins, weighed by the mean frequency of bins in all batches before."""
    names, centers = ENCODER | {"painter": "painter"}, method.centers
    student, seen = copied(method, names), []
    kernel = torch.exp(-((centers[:, None] - centers).square().sum(2)) / 50)
    kernel = kernel / kernel.sum(1, keepdim=True)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        lab = lab_of(batch.views[0].value)
        gray = image_of(lab * torch.tensor([1.0, 0.0, 0.0]))
        logs = student["painter"](student["backbone"].spatial(gray)).log_softmax(1).movedim(1, 3).flatten(0, 2)
        colors = lab[:, ::4, ::4, 1:].flatten(0, 2)
        apart = (colors[:, None] - centers).norm(dim=2)
        nearest = apart.argsort(dim=1)[:, :5]
        share = torch.exp(-(apart.gather(1, nearest) ** 2) / 50)
        share = share / share.sum(1, keepdim=True)
        prior = torch.stack(seen).mean(0) if seen else torch.full_like(kernel[0], 1 / len(centers))
        smooth = prior @ kernel
        weight = 1 / (0.5 * smooth + 0.5 / len(centers))
        weight = weight / (smooth @ weight)
        seen.append(torch.bincount(nearest[:, 0], minlength=len(centers)).double() / len(nearest))
        return -(weight[nearest[:, 0]] * (share * logs.gather(1, nearest)).sum(1)).mean()

    move = adamw(student, falling, lambda *_: 1e-3, betas=(0.9, 0.99))
    losses, _ = learn(student, loss, batches, move)
    buffers = {"prior": torch.stack(seen).mean(0), "batches": torch.tensor(10.0).double()}
    return trained(losses, named(student, names) | buffers)


def falling(step: int) -> float:
    return 3.16e-5 * 0.31623 ** ((step / 10 >= 0.44444) + (step / 10 >= 0.83333))


def split_brain(method: Method, batches: list[Batch]) -> Trained:
    """Colors of the gray image, and the lightness of the colors, a class a place."""
    names = ENCODER | {"colors": "colors", "lightness": "lightness"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        lab = lab_of(batch.views[0].value)
        colors = torch.cat([torch.full_like(lab[..., :1], 50), lab[..., 1:]], dim=3)
        both = torch.cat([image_of(lab * torch.tensor([1.0, 0.0, 0.0])), image_of(colors)])
        gray, other = student["backbone"].spatial(both).split(8)
        small = lab[:, ::4, ::4].flatten(0, 2)
        truth = [(small[:, None, 1:] - method.centers).norm(dim=2).argmin(1), small[:, 0].floor().clamp(0, 99).long()]
        scores = student["colors"](gray), student["lightness"](other)
        logs = [score.movedim(1, 3).flatten(0, 2).log_softmax(1) for score in scores]
        return -sum(log[range(len(small)), own].mean() for log, own in zip(logs, truth, strict=True))

    move = adamw(student, lambda step: 10 * falling(step), lambda *_: 1e-3, betas=(0.9, 0.99))
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def context_encoder(method: Method, batches: list[Batch]) -> Trained:
    """The middle, an overlap of one pixel around it ten times, and the game of two players, each with its own loss."""
    parts = ("bottleneck", "decoder", "discriminator")
    names = ENCODER | {part: part for part in parts}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        images = batch.views[0].value
        seen, target = images.clone(), images[:, :, 4:12, 4:12]
        seen[:, :, 5:11, 5:11] = 0
        painted = student["decoder"](student["bottleneck"](student["backbone"].pooled(seen)))
        weight = torch.full((8, 8), 10.0)
        weight[1:7, 1:7] = 1
        error = (weight * (painted - target) ** 2).mean()
        still = copy.deepcopy(student["discriminator"]).requires_grad_(False)
        deceived = -F.logsigmoid(still(painted)).mean()
        true, false = student["discriminator"](target), student["discriminator"](painted.detach())
        return 0.999 * error + 0.001 * deceived - (F.logsigmoid(true) + F.logsigmoid(-false)).mean()

    scale = lambda name: 0.1 if name.startswith("discriminator") else 1.0  # noqa: E731
    move = adamw(student, lambda _: 2e-3, lambda *_: 0.0, betas=(0.5, 0.999), scale=scale)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def selfie(method: Method, batches: list[Batch]) -> Trained:
    """Each gap of an image is filled with one of its missing pieces; all pieces are normalized together."""
    names = ENCODER | {"embed": "embed", "pool": "pool"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        images, pool, terms = batch.views[0].value, student["pool"], []
        cut = [
            images[:, :, row : row + 8, column : column + 8] for row in range(0, 32, 8) for column in range(0, 32, 8)
        ]
        embedded = student["embed"](student["backbone"].pooled(torch.cat(cut))).view(16, len(images), -1)
        at = [pool.rows[place // 4] + pool.columns[place % 4] for place in range(16)]
        for sample, draws in enumerate(batch.draws):
            order = draws.argsort().tolist()
            seen, missing = order[:9], order[9:]
            tokens = torch.stack([pool.start[0, 0], *(embedded[place, sample] + at[place] for place in seen)])
            summary = pool.norm(pool.blocks(tokens[None]))[0, 0]
            for number, gap in enumerate(missing):
                scores = embedded[missing, sample] @ (summary + at[gap])
                terms.append(scores.logsumexp(0) - scores[number])
        return torch.stack(terms).mean()

    rate = warm(0.2)
    losses, _ = learn(student, loss, batches, sgd(student, lambda step, _: rate(step), decay=1e-4, least=2))
    return trained(losses, named(student, names))


SPLIT_BRAIN = of_recipe("split_brain", split_brain, depth=1, width=16)  # at ten times its rate: ten steps are few
LOOPS = {
    "colorization": of_recipe("colorization", colorization, depth=1, width=16),
    "context_encoder": of_recipe(
        "context_encoder", context_encoder, region="center", overlap=1, adversarial=0.001, bottleneck=16, width=4
    ),
    "denoising": of_recipe("denoising", denoising, "vit", depth=1, width=16),
    "rotation": of_recipe("rotation", rotation),
    "relative_position": of_recipe("relative_position", relative_position, puzzle=36, piece=8, jitter=2, hidden=32),
    "gmml": of_recipe("gmml", gmml, "vit", hidden=32, dim=16, contrast=1.0),
    "jigsaw": of_recipe("jigsaw", jigsaw, permutations=6, puzzle=36, piece=8, dim=16),
    "selfie": of_recipe("selfie", selfie, image=32, piece=8, mask_ratio=0.4, pool_width=24, pool_depth=1, pool_heads=2),
    "split_brain": SPLIT_BRAIN._replace(optim=SPLIT_BRAIN.optim.model_copy(update={"lr": 3.16e-4})),
}
