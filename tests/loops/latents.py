"""Feature distillation and SALT, whose teachers stay as they are, NEPA and CAPI, at the settings of their recipes."""

import torch
import torch.nn.functional as F
from lightly.loss import CAPILoss
from precision import double_precision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.patch import unpatchify

from .authors import adamw, copied, cosine, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe
from .teachers import matrices


def told(method: Method, batch: Batch) -> Tensor:
    """-> (8, 17, 48): what timm's forward pass of the teacher says of class token and patches"""
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    with torch.no_grad(), double_precision():
        features: Tensor = method.teacher.method.backbone.trunk.forward_features(images)
    return features


def feature_distillation(method: Method, batches: list[Batch]) -> Trained:
    """Sample by sample: the angle between features of images, and nine tenths of it with smooth L1 of places."""
    names = {"backbone": "encoders.image", "image_head": "image_head", "place_head": "place_head"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        hidden, losses = student["backbone"](batch.views[0].value), []
        for row, wanted in zip(hidden, told(method, batch), strict=True):
            image, places = student["image_head"](row[0]), student["place_head"](row[1:])
            angles = 1 - F.cosine_similarity(places, wanted[1:], dim=1).mean()
            error = F.smooth_l1_loss(places, wanted[1:])
            losses.append(1 - F.cosine_similarity(image, wanted[0], dim=0) + 0.9 * angles + 0.1 * error)
        return torch.stack(losses).mean()

    move = adamw(student, warm(1e-3), lambda _, name, weight: 0.05 * matrices(name, weight))
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, names))


def salt(method: Method, batches: list[Batch]) -> Trained:
    """Block by block: the absolute error of a frozen teacher's normalized features."""
    names = {"backbone": "encoders.image", "predictor": "predictor"}
    student = copied(method, names)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        [view] = batch.views
        features = F.layer_norm(told(method, batch)[:, 1:], (48,))
        seen, errors = student["backbone"](view.value, view.mask.keep), []
        for block in view.mask.targets.unbind(1):
            _, predicted = student["predictor"](seen, view.mask.keep, block[:, None])
            wanted = torch.stack([rows[at] for rows, at in zip(features, block, strict=True)])
            errors.append((predicted[:, 0] - wanted).abs().mean())
        return torch.stack(errors).mean()

    decay = lambda step, name, weight: cosine(step, 0.04, 0.4) * matrices(name, weight)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(1e-3, begin=2e-4, end=1e-6), decay))
    return trained(losses, named(student, names))


def nepa(method: Method, batches: list[Batch]) -> Trained:
    """Sample by sample, by torch's causal attention; the average of weights is a teacher that teaches nothing."""
    student = copied(method, {"backbone": "encoders.image"})

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        trunk, losses = student["backbone"].trunk, []
        for image in unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4).split(1):
            x = embedded = torch.cat([trunk.cls_token, trunk.patch_embed(image)], dim=1) + trunk.pos_embed
            for block in trunk.blocks:
                x = block(x, is_causal=True)
            losses.append(-F.cosine_similarity(trunk.norm(x)[0, :-1], embedded[0, 1:].detach(), dim=1).mean())
        return torch.stack(losses).mean()

    move = adamw(student, warm(4.8e-3), lambda _, name, weight: 0.05 * matrices(name, weight), betas=(0.9, 0.95))
    average = copied(method, {"backbone": "average"})
    losses, average = learn(student, loss, batches, move, teacher=average, momentum=lambda _: 0.9999)
    return trained(losses, {"encoders.image": student["backbone"], "average": average["backbone"]})


def last_layer(head: nn.Module) -> nn.Linear:
    """Return torch's weight norm with the weights of ours."""
    linear = nn.Linear(head.weight.shape[1], head.weight.shape[0], bias=False, dtype=torch.float64)
    linear.weight.data = head.weight.detach().clone()
    normed = weight_norm(linear)
    normed.parametrizations.weight.original0.data = head.lengths.detach().clone()
    return normed


def capi(method: Method, batches: list[Batch]) -> Trained:
    """lightly's loss for predictions and for clusters, which have an optimizer of their own; codes place by place."""
    names = {"backbone": "encoders.image", "predictor": "predictor", "clusters": "clusters"}
    student = copied(method, names)
    student["head"], loss_of = last_layer(method.head), CAPILoss()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        [view] = batch.views
        asked = view.mask.targets[:, 0]
        features = teacher["backbone"](view.value)[:, 1:].detach()
        scores = student["clusters"](F.normalize(features, dim=2))
        seen = student["backbone"](view.value, view.mask.keep)
        logits = student["head"](F.normalize(student["predictor"](seen, view.mask.keep, asked), dim=2))
        return loss_of(scores, logits, asked) + loss_of(scores, scores)

    def pace(name: str) -> float:
        return 0.5 if name.startswith("clusters") else 0.2 if "patch_embed" in name else 1.0

    decay = lambda _, name, weight: (0.01 if name.startswith("clusters") else 0.1) * (weight.ndim > 1)  # noqa: E731
    move = adamw(student, warm(1e-3, end=9.549e-5), decay, betas=(0.9, 0.95), scale=pace)

    def momentum(step: int) -> float:
        return 1.0 - 0.001 * step if step < 1 else cosine(step - 1, 0.999, 0.9999045, 9)

    teacher = copied(method, {"backbone": "teacher"})
    losses, teacher = learn(student, loss, batches, move, teacher=teacher, momentum=momentum)
    parts = named(student, names) | {"teacher": teacher["backbone"]}
    normed = student["head"].parametrizations.weight
    return trained(losses, parts | {"head.weight": normed.original1, "head.lengths": normed.original0})


LOOPS = {
    "capi": of_recipe("capi", capi, "vit", clusters=12, predictor_depth=1, asked=0.2, momentum_warmup=0.1),
    "feature_distillation": of_recipe("feature_distillation", feature_distillation, "vit"),
    "nepa": of_recipe("nepa", nepa, "vit", momentum=0.9999),
    "salt": of_recipe("salt", salt, "vit"),
}
