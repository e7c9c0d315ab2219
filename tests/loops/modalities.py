"""MultiMAE, CroCo and Omnivore, sample by sample and patch by patch, at the settings of their recipes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from precision import double_precision
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import Rate, adamw, copied, learn, named, trained, warm
from .joint import through
from .masked import matrices
from .ours import Trained
from .recipes import of_recipe

PARTS = {"image": "encoders.image", "embeds": "embeds", "classes": "classes", "painters": "painters"}
CROCO = {"image": "encoders.image", "decoder": "decoder"}
OMNIVORE = {"image": "encoders.image", "depth": "depth", "later": "later", "heads": "heads"}
Parts = Mapping[str, Any] | nn.ModuleDict  # of PARTS
BETAS = 0.9, 0.95  # of the authors of masked autoencoders
N, PATCH = 16, 4  # patches of a modality, in four rows; pixels a side of each


def patches(image: Tensor) -> list[Tensor]:
    """(H, W) or (H, W, C) -> N arrays, row by row"""
    cuts = range(0, image.shape[0], image.shape[0] // 4), range(0, image.shape[1], image.shape[1] // 4)
    side = image.shape[0] // 4
    return [image[row : row + side, column : column + side] for row in cuts[0] for column in cuts[1]]


def embedded(student: Parts, sample: dict[str, list[Tensor]]) -> list[Tensor]:
    """-> 3 N vectors: every patch of all modalities at its place, before the encoder"""
    trunk, made = student["image"].trunk, []
    for name, own in sample.items():
        for place, patch in enumerate(own):
            if name == "rgb":
                vector = trunk.patch_embed.proj(patch.permute(2, 0, 1)[None]).flatten()
            elif name == "depth":
                vector = student["embeds"]["depth"](patch.flatten())
            else:
                classes = [student["classes"].weight[number] for number in patch.flatten().tolist()]  # -1: the last one
                vector = student["embeds"]["seg"](torch.cat(classes))
            made.append(vector + trunk.pos_embed[0, 1 + place])
    return made


def painted(student: Parts, name: str, at: int, seen: Tensor, keep: list[int]) -> Tensor:
    """(1 + K, D) -> (N, values): by nn.MultiheadAttention, whose weights are the painter's"""
    painter = student["painters"][name]
    width = painter.embed.out_features
    attention = nn.MultiheadAttention(width, painter.heads, batch_first=True).to(seen.dtype)
    own = {
        "in_proj_weight": torch.cat([painter.q.weight, painter.k.weight, painter.v.weight]),
        "in_proj_bias": torch.cat([painter.q.bias, painter.k.bias, painter.v.bias]),
        "out_proj.weight": painter.proj.weight,
        "out_proj.bias": painter.proj.bias,
    }
    vectors = painter.embed(seen)
    marks = {number: painter.task_embed[number // N, 0] + painter.positions[number % N] for number in range(3 * N)}
    visible = {number: vectors[1 + place] + marks[number] for place, number in enumerate(keep)}
    asked = [visible.get(at * N + place, painter.mask_token[0, 0] + marks[at * N + place]) for place in range(N)]
    context = painter.context_norm(torch.stack([vectors[0], *visible.values()]))[None]
    query = painter.query_norm(torch.stack(asked))[None]
    hidden, _ = torch.func.functional_call(attention, own, (query, context, context), {"need_weights": False})
    hidden = hidden + painter.mlp(painter.out_norm(hidden))
    return painter.head(painter.blocks(hidden))[0]


def error(name: str, paint: Tensor, patch: Tensor) -> tuple[Tensor, int]:
    """-> the sum of a patch's errors, and of how many values"""
    if name == "seg":
        pairs = zip(paint.view(patch.numel(), -1), patch.flatten().tolist(), strict=True)
        errors = [-F.log_softmax(scores, dim=0)[own] for scores, own in pairs if own >= 0]
        return sum(errors, paint.new_zeros(())), len(errors)
    target = patch.flatten()
    if name == "depth":
        known = target != 0
        return (paint - target)[known].abs().sum(), int(known.sum())
    if name == "norm_rgb":
        target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
    return (paint - target).square().sum(), target.numel()


def derived(student: Parts, batch: Batch) -> Tensor:
    """Return the loss of a batch, sample by sample and patch by patch."""
    means: dict[str, list[Tensor]] = {name: [] for name in student["painters"]}
    for number in range(len(batch.sample)):
        image = batch.views[0].value.value[number].view(N, PATCH, PATCH, 3)
        depth = batch.views[1].value.value[number].view(N, PATCH, PATCH)
        coarse = torch.stack([batch.maps[0][number, 1 + 2 * row, 1::2] for row in range(8)])
        sample = {"rgb": list(image), "depth": list(depth), "seg": patches(coarse)}
        keep = batch.views[0].mask.keep[number].tolist()
        every, trunk = embedded(student, sample), student["image"].trunk
        first = trunk.cls_token[0, 0] + trunk.pos_embed[0, 0]
        seen = trunk.norm(trunk.blocks(torch.stack([first, *(every[token] for token in keep)])[None]))[0]
        for name, own in means.items():
            task = "rgb" if name == "norm_rgb" else name
            at = list(sample).index(task)
            paint = painted(student, name, at, seen, keep)
            hidden = [place for place in range(N) if at * N + place not in keep]
            parts = [error(name, paint[place], sample[task][place]) for place in hidden]
            if count := sum(part[1] for part in parts):
                own.append(sum(part[0] for part in parts) / count)
    return sum(torch.stack(own).mean() for own in means.values())


def multimae(method: Method, batches: list[Batch]) -> Trained:
    decay = matrices_but("mask_token", "task_embed", "classes.weight")
    return learned(method, batches, PARTS, derived, warm(8e-4, begin=1e-6), decay, betas=BETAS)


def learned(
    method: Method,
    batches: list[Batch],
    names: dict[str, str],
    of: Callable[[nn.ModuleDict, Batch], Tensor],
    rate: Rate,
    decay: Callable[[int, str, Tensor], float] = matrices,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Trained:
    """Train copies of parts of a method by a loss in double precision and by AdamW."""
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        with double_precision():
            return of(student, batch)

    losses, _ = learn(student, loss, batches, adamw(student, rate, decay, betas=betas))
    return trained(losses, named(student, names))


def matrices_but(*ends: str) -> Callable[[int, str, Tensor], float]:
    """Return the decay of `matrices`, and none of weights whose names end so."""
    return lambda step, name, weight: 0.0 if name.endswith(ends) else matrices(step, name, weight)


def of_patches(trunk: nn.Module, values: Tensor, places: list[int]) -> Tensor:
    """(N, P) -> (1 + K, D): features of the class token and of these patches, which alone are seen"""
    cut = values.view(len(values), *trunk.patch_embed.proj.kernel_size, -1).movedim(-1, 1)
    x = trunk.patch_embed.proj(cut).flatten(1) + trunk.pos_embed[0, 1:]
    x = torch.cat([trunk.cls_token[0] + trunk.pos_embed[0, :1], x[places]])
    return trunk.norm(through(trunk.blocks, x))


def read_by(block: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """(N, d), (N, d) -> (N, d): by nn.TransformerDecoderLayer, whose weights are the block's"""
    sizes = {"d_model": x.shape[1], "nhead": block.heads, "dim_feedforward": 4 * x.shape[1], "dropout": 0.0}
    options = {"activation": "gelu", "norm_first": True, "batch_first": True, "layer_norm_eps": 1e-6}
    layer, attn, mlp = nn.TransformerDecoderLayer(**sizes, **options), block.attn, block.mlp
    parts = {
        "self_attn.in_proj_": [attn.qkv],
        "self_attn.out_proj.": [attn.proj],
        "multihead_attn.in_proj_": [block.q, block.k, block.v],
        "multihead_attn.out_proj.": [block.proj],
        "linear1.": [mlp.fc1],
        "linear2.": [mlp.fc2],
        "norm1.": [block.norm1],
        "norm2.": [block.norm_query],
        "norm3.": [block.norm2],
    }
    own = {
        f"{name}{kind}": torch.cat([getattr(part, kind) for part in own])
        for name, own in parts.items()
        for kind in ("weight", "bias")
    }
    return torch.func.functional_call(layer.to(x.dtype), own, (x[None], block.norm_read(memory)[None]))[0]


def croco_loss(student: nn.ModuleDict, batch: Batch) -> Tensor:
    """-> (): squared errors of the normalized pixels of hidden patches"""
    (first, second), decoder, losses = batch.views, student["decoder"], []
    for number, image in enumerate(first.value.value):
        keep, trunk = first.mask.keep[number].tolist(), student["image"].trunk
        seen, read = of_patches(trunk, image, keep), of_patches(trunk, second.value.value[number], [*range(N)])
        visible = dict(zip(keep, decoder.embed(seen[1:]), strict=True))
        x = torch.stack([visible.get(place, decoder.mask_token[0, 0]) for place in range(N)]) + decoder.positions
        for block in decoder.blocks:
            x = read_by(block, x, decoder.embed(read[1:]) + decoder.positions)
        paint = decoder.head(decoder.norm(x))
        errors = [error("norm_rgb", paint[place], image[place]) for place in range(N) if place not in keep]
        losses.append(sum(value for value, _ in errors) / sum(count for _, count in errors))
    return torch.stack(losses).mean()


def croco(method: Method, batches: list[Batch]) -> Trained:
    return learned(method, batches, CROCO, croco_loss, warm(1.5e-4, end=8.12e-5), betas=BETAS)


def shot(values: Tensor, times: int) -> Tensor:
    """(N, P) -> (3, T, H, W): frames of a clip; of an image one, and a black one after it, as theirs are padded"""
    frames = values.view(times, 4, 4, -1, PATCH, PATCH, 3).permute(6, 0, 3, 1, 4, 2, 5)
    frames = frames.reshape(3, -1, 4 * PATCH, 4 * PATCH)
    return frames if frames.shape[1] > 1 else torch.cat([frames, torch.zeros_like(frames)], dim=1)


def seen_by(student: Parts, frames: Tensor, added: Tensor | float) -> Tensor:
    """(3, T, H, W) -> (D,): the class token's feature, by one kernel of two frames. added: to (T / 2, N, D)"""
    trunk, later = student["image"].trunk, student["later"].embed.weight
    kernel = [trunk.patch_embed.proj.weight, later.view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)]
    cut = F.conv3d(frames[None], torch.stack(kernel, 2), trunk.patch_embed.proj.bias, stride=(2, PATCH, PATCH))[0]
    x = cut.flatten(2).permute(1, 2, 0) + trunk.pos_embed[0, 1:] + added
    x = torch.cat([trunk.cls_token[0] + trunk.pos_embed[0, :1], x.flatten(0, 1)])
    return trunk.norm(through(trunk.blocks, x))[0]


def omnivore_loss(student: Parts, batch: Batch, drop: float = 0.5) -> Tensor:
    """-> (): cross-entropy of labelled samples by the heads of their kinds, a tenth of the truth for all classes"""
    (image, depth, clip), losses = batch.views, []
    for row, truth in enumerate(batch.label.tolist()):
        name, values = "image", image.value.value[row]
        if clip.has[row]:
            name, added = "video", student["later"].times[:, None]
            frames = shot(clip.value.value[row], len(added))
        elif depth.has[row]:
            name, added = "depth", student["depth"](depth.value.value[row])
            frames = shot(values * float(batch.draws[row, 0] >= drop), 1)
        else:
            frames, added = shot(values, 1), 0.0
        chances = student["heads"][name](seen_by(student, frames, added)).log_softmax(0)
        if truth >= 0:
            losses.append(-0.9 * chances[truth] - 0.1 * chances.mean())
    return torch.stack(losses).mean()


def omnivore(method: Method, batches: list[Batch]) -> Trained:
    rate = warm(2e-3, begin=2e-6, end=2e-4)
    return learned(method, batches, OMNIVORE, omnivore_loss, rate, matrices_but("times"))


SMALL = {"mask_ratio": 0.75, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
LOOPS = {
    "multimae": of_recipe("multimae", multimae, "vit")._replace(samples=4),
    "croco": of_recipe("habitat/croco", croco, "vit", **SMALL),
    "omnivore": of_recipe("omnivore", omnivore, "vit", color_drop=0.5),
}
