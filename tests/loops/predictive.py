"""SimMIM, I-JEPA, data2vec, DropPos, FlexPredict, ROPIM, AIM and SemAIM, at the settings of their recipes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.noise import gaussian, uniform
from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.tokens import Tokens

from .authors import Rate, adamw, copied, cosine, learn, named, trained, warm
from .ours import STEPS, WARMUP, Trained
from .recipes import of_recipe
from .teachers import Masking, matrices


def beits_decay(decay: float) -> Callable[[int, str, Tensor], float]:
    """Return BEiT's rule: neither vectors nor the class token and positions decay."""
    return lambda _, name, weight: decay * (weight.ndim > 1 and not name.endswith((".cls_token", ".pos_embed")))


def dropping(peak: float, *, begin: float, drop: int) -> Rate:
    """Return a rise from `begin` in the warm-up, then a constant, of which a tenth is left from step `drop` on."""

    def rate(step: int) -> float:
        if step < WARMUP:
            return begin + (peak - begin) * (step + 1) / WARMUP
        return peak * (0.1 if step >= drop else 1.0)

    return rate


def simmim(method: Method, batches: list[Batch]) -> Trained:
    """The absolute error of masked pixels, image by image."""
    student = copied(method, {"head": "head"})
    student["backbone"] = Masking(method.backbone, method.mask_token)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens, where = batch.views[0].value, batch.views[0].mask.where
        painted = student["head"](student["backbone"](tokens, where)[:, 1:])
        pixels, images = (unpatchify(value, grid=(4, 4), patch=4) for value in (painted, tokens.value))
        mask = where.view(-1, 4, 4).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)[:, None]
        return ((images - pixels).abs() * mask).sum() / mask.sum() / 3

    move = adamw(
        student,
        dropping(4e-4, begin=2e-6, drop=9),
        beits_decay(0.05),
        clip=lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0),
    )
    losses, _ = learn(student, loss, batches, move)
    backbone = student["backbone"]
    parts = {"encoders.image": backbone.encoder, "mask_token": backbone.mask_token, "head": student["head"]}
    return trained(losses, parts)


def ijepa(method: Method, batches: list[Batch]) -> Trained:
    """Block by block: features of a teacher of the whole image, whose momentum rises on a line."""
    student = copied(method, {"backbone": "encoders.image", "predictor": "predictor"})

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        [view] = batch.views
        features = F.layer_norm(teacher["backbone"](view.value)[:, 1:].detach(), (48,))
        seen, errors = student["backbone"](view.value, view.mask.keep), []
        for block in view.mask.targets.unbind(1):
            _, predicted = student["predictor"](seen, view.mask.keep, block[:, None])
            wanted = torch.stack([rows[at] for rows, at in zip(features, block, strict=True)])
            errors.append(F.smooth_l1_loss(predicted[:, 0], wanted))
        return torch.stack(errors).mean()

    decay = lambda step, name, weight: cosine(step, 0.04, 0.4) * matrices(name, weight)  # noqa: E731
    move = adamw(student, warm(1e-3, begin=2e-4, end=1e-6), decay)
    teacher = copied(method, {"backbone": "teacher"})
    losses, teacher = learn(
        student, loss, batches, move, teacher=teacher, momentum=lambda step: 0.996 + 0.004 * step / STEPS
    )
    parts = {"encoders.image": student["backbone"], "predictor": student["predictor"]}
    return trained(losses, parts | {"teacher": teacher["backbone"]})


def data2vec(method: Method, batches: list[Batch]) -> Trained:
    """Features of both blocks of the teacher, taken before the final norm by hooks, image by image."""
    student = copied(method, {"head": "head"})
    student["backbone"] = Masking(method.backbone, method.mask_token)
    teacher, outputs = nn.ModuleDict({"backbone": Masking(method.teacher, method.mask_token)}), []
    for block in teacher["backbone"].encoder.trunk.blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(F.layer_norm(out[:, 1:], (48,))))

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens, where = batch.views[0].value, batch.views[0].mask.where
        outputs.clear()
        with torch.no_grad():
            teacher["backbone"](tokens)
        targets = F.layer_norm((outputs[0] + outputs[1]) / 2, (48,))
        predicted = student["head"](student["backbone"](tokens, where)[:, 1:])
        pairs = zip(predicted, targets, where, strict=True)
        return torch.stack([F.smooth_l1_loss(p[at], t[at], beta=2.0) for p, t, at in pairs]).mean()

    move = adamw(
        student,
        warm(2e-3, end=1e-5),
        beits_decay(0.05),
        clip=lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0),
    )
    losses, teacher = learn(student, loss, batches, move, teacher=teacher, momentum=lambda _: 0.9998)
    backbone = student["backbone"]
    parts = {"encoders.image": backbone.encoder, "mask_token": backbone.mask_token, "head": student["head"]}
    return trained(losses, parts | {"teacher": teacher["backbone"].encoder})


def droppos(method: Method, batches: list[Batch]) -> Trained:
    """Places of the last three quarters of the visible patches, whose labels narrow each epoch of two steps."""
    names = {"backbone": "encoders.image", "decoder": "decoder"}
    student = copied(method, names)
    student["lost"] = nn.ParameterList([method.no_position.detach().clone()])
    place = torch.tensor([(n // 4, n % 4) for n in range(16)], dtype=torch.float64)
    apart = (place[:, None] - place).square().sum(dim=2)

    def encoded(tokens: Tokens, keep: Tensor | None, known: int) -> Tensor:
        trunk = student["backbone"].trunk
        patches = trunk.patch_embed(unpatchify(tokens.value, grid=(4, 4), patch=4))
        position, first = trunk.pos_embed[0, 1:].expand(8, -1, -1), trunk.cls_token + trunk.pos_embed[:, :1]
        if keep is not None:
            patches, position = (x.gather(1, keep[..., None].expand(-1, -1, 48)) for x in (patches, position))
            position = torch.cat([position[:, :known], student["lost"][0].expand(8, keep.shape[1] - known, -1)], dim=1)
        return trunk.norm(trunk.blocks(torch.cat([first.expand(8, -1, -1), patches + position], dim=1)))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        tokens, keep = batch.views[0].value, batch.views[0].mask.keep
        known, width = keep.shape[1] // 4, 1 - step // 2 / 5
        labels = torch.exp(-apart / width**2)
        labels = (labels / labels.sum(dim=1, keepdim=True))[keep]
        log_p = student["decoder"](encoded(tokens, keep, known))[:, 1:].log_softmax(dim=2)
        with torch.no_grad():
            whole = encoded(tokens, None, 16)
            alike = (F.cosine_similarity(whole[:, :1], whole[:, 1:], dim=2) / 0.1).softmax(dim=1).gather(1, keep)
        weight = alike / alike.sum(dim=1, keepdim=True) * (torch.arange(keep.shape[1]) >= known)
        return ((-labels * log_p).sum(dim=2) * weight).sum() / weight.sum()

    def clip() -> None:
        for weight in student.parameters():
            if weight.grad is not None:
                weight.grad.mul_(min(1.0, 5 / (weight.grad.norm().item() + 1e-6)))

    decay = lambda _, name, weight: 0.05 * matrices(name, weight)  # noqa: E731
    move = adamw(student, warm(1.2e-3), decay, betas=(0.9, 0.95), clip=clip)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names) | {"no_position": student["lost"][0]})


def flexpredict(method: Method, batches: list[Batch]) -> Trained:
    """Block by block through the predictor's layers, with noise at targets that its first layer embeds."""
    student = copied(method, {"backbone": "encoders.image", "predictor": "predictor"})

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        [view], predictor = batch.views, student["predictor"]
        features = F.layer_norm(teacher["backbone"](view.value)[:, 1:].detach(), (48,))
        seen = predictor.embed(student["backbone"](view.value, view.mask.keep))
        seen = torch.cat([seen[:, :1], seen[:, 1:] + predictor.positions[view.mask.keep]], dim=1)
        drawn, errors = gaussian(batch.draws, (*view.mask.targets.shape[1:], 48)), []
        for number, block in enumerate(view.mask.targets.unbind(1)):
            asked = (
                predictor.mask_token + predictor.positions[block] + 0.25 * drawn[:, number] @ predictor.embed.weight.T
            )
            hidden = predictor.blocks(torch.cat([seen, asked], dim=1))[:, seen.shape[1] :]
            wanted = torch.stack([rows[at] for rows, at in zip(features, block, strict=True)])
            errors.append(F.smooth_l1_loss(predictor.head(predictor.norm(hidden)), wanted))
        return torch.stack(errors).mean()

    move = adamw(student, warm(8e-4, begin=2e-4, end=1e-4), lambda s, n, w: cosine(s, 0.04, 0.4) * matrices(n, w))
    teacher, rise = copied(method, {"backbone": "teacher"}), lambda step: 0.996 + 0.004 * step / STEPS
    losses, teacher = learn(student, loss, batches, move, teacher=teacher, momentum=rise)
    parts = {"encoders.image": student["backbone"], "predictor": student["predictor"]}
    return trained(losses, parts | {"teacher": teacher["backbone"]})


def ropim(method: Method, batches: list[Batch]) -> Trained:
    """Images and errors times matrices of N by N, whose buckets and signs are those of the objective."""
    names = {"backbone": "encoders.image", "head": "head"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        bucket, sign = method._sketch(batch)
        one_hot = F.one_hot(bucket, 5) * sign[..., None].double()  # (B, N, buckets)
        matrix = one_hot / one_hot.square().sum(dim=1, keepdim=True) @ one_hot.mT
        trunk, tokens = student["backbone"].trunk, batch.views[0].value.value
        patches = matrix @ trunk.patch_embed(unpatchify(tokens, grid=(4, 4), patch=4))
        x = torch.cat([trunk.cls_token.expand(8, -1, -1), patches], dim=1) + trunk.pos_embed
        painted = student["head"](trunk.norm(trunk.blocks(x))[:, 1:])
        return ((torch.eye(16, dtype=torch.float64) - matrix) @ (tokens - painted)).abs().mean()

    move = adamw(
        student,
        warm(6e-4, begin=2e-6, end=2e-5),
        beits_decay(0.05),
        betas=(0.9, 0.95),
        clip=lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0),
    )
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def aim(method: Method, batches: list[Batch]) -> Trained:
    """One sample after another: the part that is read in both directions, then patch by patch."""
    names = {"backbone": "encoders.image", "head": "head"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        trunk, losses = student["backbone"].trunk, []
        patches = trunk.patch_embed(unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4))
        for sample, draw in enumerate(batch.draws[:, 0].tolist()):
            first = 1 + int(draw * 15)
            reads = torch.ones(17, 17, dtype=torch.bool).tril()
            reads[:, : first + 1] = True
            x = torch.cat([trunk.cls_token[0], patches[sample]])[None] + trunk.pos_embed
            for block in trunk.blocks:
                x = block(x, attn_mask=reads[None, None])
            painted = student["head"](trunk.norm(x)[:, 1:])[0]
            pixels = batch.views[0].value.value[sample]
            target = (pixels - pixels.mean(1, keepdim=True)) / (pixels.var(1, keepdim=True) + 1e-6).sqrt()
            losses.append((painted[first - 1 : -1] - target[first:]).square().mean())
        return torch.stack(losses).mean()

    move = adamw(
        student,
        warm(1e-3),
        lambda _, name, weight: 0.05 * matrices(name, weight),
        betas=(0.9, 0.95),
        clip=lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0),
    )
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def semaim(method: Method, batches: list[Batch]) -> Trained:
    """One sample after another, its patches laid out in their order: what each reads is a triangle."""
    names = {"backbone": "encoders.image", "decoder": "decoder", "head": "head"}
    student, apart = copied(method, names), torch.arange(-4, 5, dtype=torch.float64)
    kernel = torch.exp(-(apart[:, None] ** 2 + apart**2) / 2).repeat(3, 1, 1, 1)

    def ordered(image: Tensor, chance: Tensor) -> Tensor:
        with torch.no_grad():
            first, *rest = student["backbone"].trunk.forward_features(image)[0]
        center = int(torch.stack([F.cosine_similarity(first, patch, dim=0) for patch in rest]).argmax())
        place = torch.tensor([((n // 4 - center // 4) ** 2 + (n % 4 - center % 4) ** 2) ** 0.5 for n in range(16)])
        return (place + 1e-3 * chance).argsort()

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        trunk, losses = student["backbone"].trunk, []
        images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
        seen = torch.ones(17, 17, dtype=torch.bool).tril()
        for image, chance in zip(images.split(1), uniform(batch.draws, (16,)), strict=True):
            order = ordered(image, chance)
            patches = (trunk.patch_embed(image) + trunk.pos_embed[:, 1:])[:, order]
            x = torch.cat([trunk.cls_token + trunk.pos_embed[:, :1], patches], dim=1)
            query = student["decoder"].positions[None, order]
            for block, other in zip(trunk.blocks, student["decoder"].blocks, strict=True):
                x = block(x, attn_mask=seen[None, None])
                query = other(query, x[:, :16], seen[None, None, :16, :16])
            blurred = F.conv2d(image, kernel / kernel[0].sum(), padding=4, groups=3)
            target = patchify(blurred, 4).value[0, order]
            target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
            losses.append((student["head"](trunk.norm(query))[0] - target).square().mean())
        return torch.stack(losses).mean()

    clip = lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    decay = lambda _, name, weight: 0.05 * matrices(name, weight)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(2e-4 * 8), decay, betas=(0.9, 0.95), clip=clip))
    return trained(losses, named(student, names))


LOOPS = {
    "simmim": of_recipe("simmim", simmim, "vit"),
    "ijepa": of_recipe("ijepa", ijepa, "vit"),
    "data2vec": of_recipe("data2vec", data2vec, "vit", average=2),
    "droppos": of_recipe("droppos", droppos, "vit"),
    "flexpredict": of_recipe("flexpredict", flexpredict, "vit"),
    "ropim": of_recipe("ropim", ropim, "vit"),
    "aim": of_recipe("aim", aim, "vit"),
    "semaim": of_recipe("semaim", semaim, "vit", decoder_depth=2),
}
