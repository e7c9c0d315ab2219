"""VQ-VAE, DALL-E's dVAE, and what learns from a teacher's codes and clusters, at the settings of their recipes."""

import math

import torch
import torch.nn.functional as F
from precision import double_precision
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.noise import uniform
from selfsup.parts.patch import unpatchify

from .authors import adamw, copied, cosine, learn, named, on_gpus, sgd, trained, warm
from .ours import Trained
from .predictive import beits_decay
from .recipes import of_recipe
from .teachers import Masking

ENCODER = {"backbone": "encoders.image"}


def vqvae(method: Method, batches: list[Batch]) -> Trained:
    """Codes are moving averages of unit vectors, and rare ones vectors of the batch; matrices decay."""
    names = ENCODER | {"project": "project", "embed": "embed", "decoder": "decoder"}
    student, codes = copied(method, names), method.quantizer.codebook.clone()
    count, total = torch.zeros_like(codes[:, 0]), torch.zeros_like(codes)
    latest: list[Tensor] = []

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens = batch.views[0].value
        z = F.normalize(student["project"](student["backbone"](tokens)[:, 1:]), dim=2)
        unit = F.normalize(codes, dim=1)
        code = torch.cdist(z, unit.expand(len(z), -1, -1)).argmin(dim=2)
        latest[:] = z.detach().flatten(0, 1), code.flatten()
        passed = z + (unit[code] - z).detach()
        painted = student["decoder"](student["embed"](passed) + method.positions)
        return (painted - tokens.value).square().mean() + 0.25 * (z - unit[code]).square().mean()

    optimizer = adamw(student, warm(1e-4, end=5e-5), lambda _, __, weight: 1e-4 * (weight.ndim > 1), betas=(0.9, 0.99))

    def move(step: int) -> None:
        optimizer(step)
        z, code = latest
        even = len(z) / len(codes)
        for number in range(len(codes)):
            own = z[code == number]
            count[number] = 0.99 * count[number] + 0.01 * len(own)
            total[number] = 0.99 * total[number] + 0.01 * own.sum(0)
            if count[number] < 0.1 * even:
                count[number], total[number] = even, even * z[number * len(z) // len(codes)]
            codes[number] = total[number] / count[number]

    losses, _ = learn(student, loss, batches, move)
    own = {"quantizer.codebook": codes, "quantizer.count": count, "quantizer.total": total}
    return trained(losses, named(student, names) | own)


def dvae(method: Method, batches: list[Batch]) -> Trained:
    """Mixtures of codes by Gumbel noise; after the first step the temperature is 1/16 and the divergence weighs 6.6."""
    names = ENCODER | {"project": "project", "embed": "embed", "decoder": "decoder"}
    student = copied(method, names)
    student["codes"] = nn.ParameterList([method.quantizer.codebook.detach().clone()])
    count = torch.zeros(24, dtype=torch.float64)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        tokens, (temperature, weight) = batch.views[0].value, (1 / 16, 6.6) if step else (1.0, 0.0)
        log_p = student["project"](student["backbone"](tokens)[:, 1:]).log_softmax(dim=2)
        noise = -(-uniform(batch.draws, (16, 24)).log()).log()
        mixture = torch.exp((log_p + noise) / temperature)
        mixture = mixture / mixture.sum(dim=2, keepdim=True) @ student["codes"][0]
        painted = student["decoder"](student["embed"](mixture) + method.positions)
        count.mul_(0.99).add_(0.01 * log_p.argmax(dim=2).flatten().bincount(minlength=24).double())
        divergence = (log_p.exp() * (log_p + math.log(24))).sum(dim=2).mean()
        return (painted - tokens.value).square().mean() + weight / 48 * divergence

    optimizer = adamw(student, lambda step: cosine(step, 1e-4, 1.25e-6), lambda _, __, weight: 1e-4 * (weight.ndim > 1))
    losses, _ = learn(student, loss, batches, optimizer)
    own = {"quantizer.codebook": student["codes"][0], "quantizer.count": count}
    return trained(losses, named(student, names) | own)


def clusterfit(method: Method, batches: list[Batch]) -> Trained:
    """Matrices decay; the rate rises from 0.1 and is divided by ten four times; labels are clusters."""
    names = ENCODER | {"head": "head"}
    student = on_gpus(copied(method, names))

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        logits = student["head"](student["backbone"].pooled(batch.views[0].value))
        return -logits.log_softmax(dim=1)[range(8), method.cluster[batch.sample]].mean()

    def rate(step: int, _: str) -> float:
        drops = sum(step >= 10 * epoch / 105 for epoch in (30, 60, 90, 100))
        return 0.1 + 0.3 * (step + 1) / 2 if step < 2 else 0.4 * 0.1**drops

    losses, _ = learn(student, loss, batches, sgd(student, rate, decay=1e-4, least=2))
    return trained(losses, named(student, names) | {"cluster": method.cluster})


def beit(method: Method, batches: list[Batch]) -> Trained:
    """Cross-entropy image by image; neither vectors nor the class token and positions decay."""
    student = copied(method, {"head": "head"})
    student["backbone"] = Masking(method.backbone, method.mask_token)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens, where = batch.views[0].value, batch.views[0].mask.where
        with double_precision():
            code = method.teacher.codes(tokens)
        log_p = student["head"](student["backbone"](tokens, where)[:, 1:]).log_softmax(dim=2)
        rows = zip(log_p, code, where, strict=True)
        return torch.stack([-p[at].take_along_dim(c[at][:, None], dim=1).mean() for p, c, at in rows]).mean()

    clip = lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-3, end=1e-5), beits_decay(0.05), clip=clip))
    backbone = student["backbone"]
    parts = {"encoders.image": backbone.encoder, "mask_token": backbone.mask_token, "head": student["head"]}
    return trained(losses, parts)


def crossed(block: nn.Module, hidden: Tensor, read: Tensor, hidden_place: Tensor, place: Tensor) -> Tensor:
    """Apply a block of CAE's regressor by torch's own multi-head attention, which takes tokens first."""
    query, key = block.norm_query(hidden + hidden_place), block.norm_key(read + place)
    bias = torch.cat([block.query.bias, torch.zeros_like(block.value.bias), block.value.bias])
    tokens_first = [x.transpose(0, 1) for x in (query, key, block.norm_value(read))]
    mixed, _ = F.multi_head_attention_forward(
        *tokens_first,
        hidden.shape[2],
        block.heads,
        None,
        bias,
        None,
        None,
        False,
        0.0,
        block.out.weight,
        block.out.bias,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=block.query.weight,
        k_proj_weight=block.key.weight,
        v_proj_weight=block.value.weight,
    )
    x = block.norm(hidden + block.scale_attention * mixed.transpose(0, 1))
    return x + block.scale_mlp * block.mlp.fc2(F.gelu(block.mlp.fc1(x)))


def caes_loss(method: Method, student: nn.ModuleDict, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of hidden codes and twice the squared distance to the encoder's own features."""
    [view], [block], trunk = batch.views, student["regressor"].blocks, student["backbone"].trunk
    place = method.regressor.positions.expand(8, -1, -1)

    def at(x: Tensor, numbers: Tensor) -> Tensor:
        return torch.stack([row[own] for row, own in zip(x, numbers, strict=True)])

    def encoded(numbers: Tensor) -> Tensor:
        patches = trunk.patch_embed(unpatchify(view.value.value, grid=(4, 4), patch=4)) + trunk.pos_embed[:, 1:]
        first = (trunk.cls_token + trunk.pos_embed[:, :1]).expand(8, -1, -1)
        return trunk.norm(trunk.blocks(torch.cat([first, at(patches, numbers)], dim=1)))[:, 1:]

    keep, hide = view.mask.keep, view.mask.hide
    seen, query = encoded(keep), student["regressor"].query.expand(8, hide.shape[1], -1)
    everywhere = torch.cat([at(place, keep), at(place, hide)], dim=1)
    features = student["regressor"].norm(
        crossed(block, query, torch.cat([seen, query], dim=1), at(place, hide), everywhere)
    )
    logits = student["decoder"](features + at(place, hide))
    with double_precision():
        code = at(method.target.tokenizer.codes(view.value), hide)
    entropy = -logits.log_softmax(dim=2).gather(2, code[..., None]).mean()
    return entropy + 2 * (features - encoded(hide).detach()).square().mean()


def cae(method: Method, batches: list[Batch]) -> Trained:
    """Vectors do not decay, class token and query do."""
    names = ENCODER | {"regressor": "regressor", "decoder": "decoder"}
    student = copied(method, names)
    clip = lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    decay = lambda _, __, weight: 0.05 * (weight.ndim > 1)  # noqa: E731
    move = adamw(student, warm(1.5e-3, end=1e-5), decay, clip=clip)
    losses, _ = learn(student, lambda student, _, batch, __: caes_loss(method, student, batch), batches, move)
    return trained(losses, named(student, names))


def mages_loss(method: Method, student: nn.ModuleDict, batch: Batch) -> Tensor:
    """Return the cross-entropy with smooth labels of masked codes, sample by sample, by blocks of timm."""
    [view], trunk, decoder, losses = batch.views, student["backbone"].trunk, student["decoder"], []
    with double_precision():
        code = method.teacher.codes(view.value)
        pixels = view.value.value if method.hyper.input == "pixels" else method.teacher.decoded(code)
    patches = trunk.patch_embed(unpatchify(pixels, grid=(4, 4), patch=4))
    for row, own, keep, masked in zip(patches, code, view.mask.keep, view.mask.targets[:, 0], strict=True):
        hidden = set(masked.tolist())
        seen = [student["mask"][0][0] if number in hidden else row[number] for number in keep.tolist()]
        x = torch.cat([trunk.cls_token[0], torch.stack(seen)]) + trunk.pos_embed[0, [0, *(keep + 1).tolist()]]
        first, *features = decoder.embed(trunk.norm(trunk.blocks(x[None]))[0])
        known = {
            number: feature for number, feature in zip(keep.tolist(), features, strict=True) if number not in hidden
        }
        grid = torch.stack([known.get(number, first) for number in range(16)]) + decoder.places.positions
        log_p = decoder.head(decoder.norm(decoder.blocks(torch.cat([first[None], grid])[None])))[0, 1:].log_softmax(
            dim=1
        )
        losses.append(torch.stack([-0.9 * log_p[n, own[n]] - 0.1 * log_p[n].mean() for n in sorted(hidden)]).mean())
    return torch.stack(losses).mean()


def mage(method: Method, batches: list[Batch]) -> Trained:
    """MAE's optimizer, with gradients cut at a norm of 3; the masked token, a matrix, decays."""
    names = ENCODER | {"decoder": "decoder"}
    student = copied(method, names)
    student["mask"] = nn.ParameterList([method.mask_token.detach().clone()])
    clip = lambda: torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    decay = lambda _, __, weight: 0.05 * (weight.ndim > 1)  # noqa: E731
    move = adamw(student, warm(2.4e-3), decay, betas=(0.9, 0.95), clip=clip)
    losses, _ = learn(student, lambda student, _, batch, __: mages_loss(method, student, batch), batches, move)
    return trained(losses, named(student, names) | {"mask_token": student["mask"][0]})


LOOPS = {
    "beit": of_recipe("beit", beit, "vit", mask_block=2),
    "cae": of_recipe("cae", cae, "vit", regressor_depth=1, decoder_depth=2),
    "clusterfit": of_recipe("clusterfit", clusterfit, clusters=4),
    "mage": of_recipe("mage", mage, "vit", decoder_width=32, decoder_depth=2, decoder_heads=2),
    "vqvae": of_recipe(
        "vqvae", vqvae, "vit", num_codes=24, code_dim=8, decoder_width=32, decoder_depth=2, decoder_heads=4
    ),
    "vqvae_gumbel": of_recipe(
        "vqvae_gumbel", dvae, "vit", num_codes=24, code_dim=8, decoder_width=32, decoder_depth=2, decoder_heads=4
    ),
}
