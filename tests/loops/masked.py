"""MaskFeat, MixedAE, MACRL and MAE of a Hiera, at the settings of their recipes."""

import copy

import torch
import torch.nn.functional as F
from precision import double_precision
from torch import Tensor, nn
from transformers_hiera import noise, ours, reference, theirs

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.hog import hog_of_tokens
from selfsup.parts.patch import unpatchify

from .authors import adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe
from .teachers import Masking


def matrices(_: int, name: str, weight: Tensor) -> float:
    return 0.05 * (weight.ndim > 1 and not name.endswith("bias"))


def maskfeat(method: Method, batches: list[Batch]) -> Trained:
    """Histograms at mask tokens; the gradient of all weights together is clipped to 0.02."""
    names = {"head": "head"}
    student = copied(method, names)
    student["backbone"] = Masking(method.backbone, method.mask_token)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        tokens, removed = batch.views[0].value, batch.views[0].mask.removed
        predicted = student["head"](student["backbone"](tokens, removed)[:, 1:])
        with double_precision():
            target = hog_of_tokens(tokens, patch=4, cell=2)
        return (predicted - target)[removed].square().mean()

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(student.parameters(), 0.02)

    rates = warm(8 * 2e-4, begin=8 * 1e-6, end=8 * 1e-6)  # SlowFast multiplies all of them by its nodes
    losses, _ = learn(student, loss, batches, adamw(student, rates, matrices, clip=clip))
    parts = {"encoders.image": student["backbone"].encoder, "mask_token": student["backbone"].mask_token.detach()}
    return trained(losses, parts | named(student, names))


class Mixing(nn.Module):
    """The parts of MixedAE: a ViT of patches of 4 pixels, a vector for each image of a mixed one, a decoder."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(method.backbone), copy.deepcopy(method.decoder)
        self.segments = nn.Parameter(method.segments.detach().clone())

    def features(self, picture: Tensor, owner: Tensor, strongest: int) -> Tensor:
        """(N, P), (N,) -> (1 + N, D): each query's strongest keys alone, in all blocks but the first."""
        trunk, side = self.encoder.trunk, round(len(owner) ** 0.5)
        patches = trunk.patch_embed(unpatchify(picture[None], grid=(side, side), patch=4))[0] + self.segments[owner]
        x = torch.cat([trunk.cls_token[0], patches]) + trunk.pos_embed[0]
        for number, block in enumerate(trunk.blocks):
            q, k, v = block.attn.qkv(block.norm1(x)).view(len(x), 3, block.attn.num_heads, -1).permute(1, 2, 0, 3)
            scores = torch.einsum("hqd,hkd->hqk", q, k) / q.shape[2] ** 0.5
            if number:
                weakest = scores.sort(dim=2, descending=True).values[..., strongest : strongest + 1]
                scores = scores.masked_fill(scores <= weakest, -torch.inf)
            mixed = torch.einsum("hqk,hkd->qhd", scores.softmax(dim=2), v).flatten(1)
            x = x + block.attn.proj(mixed)
            x = x + block.mlp(block.norm2(x))
        return trunk.norm(x)

    def painted(self, features: Tensor, own: list[int]) -> Tensor:
        """(1 + N, D) -> (N, P), in the order of the grid: from the features of one image's patches."""
        decoder, seen = self.decoder, self.decoder.embed(features)
        places = decoder.mask_token[0].repeat(len(features) - 1, 1).index_put((torch.tensor(own),), seen[1:][own])
        x = torch.cat([seen[:1], places + decoder.places.positions])[None]
        return decoder.head(decoder.norm(decoder.blocks(x)))[0, 1:]

    def forward(self, batch: Batch, images: int, contrast: float = 0.1, temperature: float = 0.25) -> Tensor:
        view, errors, entropies = batch.views[0], [], []
        values, order = view.value.value, view.mask.order
        share = order.shape[1] // images
        for first in range(0, len(values), images):
            chosen = [order[first, own * share : (own + 1) * share].tolist() for own in range(images)]
            owner = torch.tensor([next(own for own in range(images) if place in chosen[own]) for place in range(16)])
            picture = torch.stack([values[first + own, place] for place, own in enumerate(owner.tolist())])
            features = self.features(picture, owner, share)
            for own, places in enumerate(chosen):
                target = values[first + own]
                target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
                error = (self.painted(features, places) - target).square().mean(dim=1)
                errors += [error[place] for place in range(16) if place not in places]
            unit = features[1:] / features[1:].norm(dim=1, keepdim=True)
            cosines = unit @ unit.T / temperature
            for place in range(16):
                rest = torch.tensor([other for other in range(16) if other != place])
                chance = cosines[place][rest] - cosines[place][rest].logsumexp(0)
                entropies.append(-chance[owner[rest] == owner[place]].mean())
        return torch.stack(errors).mean() + contrast * torch.stack(entropies).mean()


def mixedae(method: Method, batches: list[Batch]) -> Trained:
    """MAE's optimizer, on mixed images of two."""
    student = nn.ModuleDict({"mixing": Mixing(method)})

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return student["mixing"](batch, 2)

    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-4 * 16), matrices, betas=(0.9, 0.95)))
    mixing = student["mixing"]
    parts = {"encoders.image": mixing.encoder, "decoder": mixing.decoder, "segments": mixing.segments.detach()}
    return trained(losses, parts)


def macrl(method: Method, batches: list[Batch]) -> Trained:
    """MAE's optimizer; both views are encoded and painted image by image; keys move by a thousandth."""
    names = {"backbone": "encoders.image", "decoder": "decoder", "projector": "projector"}
    keys = {"backbone": "key", "projector": "key_projector"}
    student, teacher, queue = copied(method, names), copied(method, keys), method.queue.rows.clone()

    def painted(tokens: Tensor, keep: Tensor, seen: Tensor) -> Tensor:
        decoder = student["decoder"]
        places = (
            decoder.mask_token[0].repeat(16, 1).index_put((keep,), decoder.embed(seen[1:])) + decoder.places.positions
        )
        x = decoder.blocks(torch.cat([decoder.embed(seen[:1]), places])[None])
        hidden = [place for place in range(16) if place not in keep]
        return (decoder.head(decoder.norm(x))[0, 1:] - tokens)[hidden].abs().mean()

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        errors, vectors = [], []
        for view in batch.views:
            features = student["backbone"](view.value, view.mask.keep)
            rows = zip(view.value.value, view.mask.keep, features, strict=True)
            errors += [painted(*row) for row in rows]
            vectors.append(features[:, 1:].mean(1))
        weak = batch.views[1]
        key = teacher["projector"](teacher["backbone"](weak.value, weak.mask.keep)[:, 1:].mean(1))
        query, key = F.normalize(student["projector"](vectors[0]), dim=1), F.normalize(key.detach(), dim=1)
        scores = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T.clone()], dim=1) / 0.2
        queue[8 * step % 24 : 8 * step % 24 + 8] = key
        return torch.stack(errors).mean() + (scores.logsumexp(1) - scores[:, 0]).mean()

    move = adamw(student, warm(1.5e-4 * 4), matrices, betas=(0.9, 0.95))
    losses, _ = learn(student, loss, batches, move, teacher=teacher, momentum=lambda _: 0.999)
    return trained(losses, named(student, names) | named(teacher, keys) | {"queue.rows": queue})


def mae_hiera(method: Method, batches: list[Batch]) -> Trained:
    """transformers' model, whose rate is not of the batch; the encoder's positions do not decay."""
    student = nn.ModuleDict({"mae": reference(method)})

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        view = batch.views[0]
        images = unpatchify(view.value.value, grid=view.value.grid, patch=8)
        with double_precision():
            return student["mae"](images, noise=noise(view.mask)).loss

    def decay(step: int, name: str, weight: Tensor) -> float:
        return 0.0 if "position_embeddings" in name else matrices(step, name, weight)

    losses, _ = learn(student, loss, batches, adamw(student, warm(8e-4), decay, betas=(0.9, 0.95)))
    weights = student["mae"].state_dict()
    parts = {name: ours(name, weights[theirs(method, name)]) for name, _ in method.named_parameters()}
    return trained(losses, parts)


LOOPS = {
    "macrl": of_recipe(
        "macrl", macrl, "vit", queue=24, dim=16, decoder_width=32, decoder_depth=1, decoder_heads=4
    )._replace(shaken=True),
    "mae_hiera": of_recipe("mae_hiera", mae_hiera, "hiera", decoder_width=32, decoder_depth=1, decoder_heads=4),
    "maskfeat": of_recipe("maskfeat", maskfeat, "vit", cell=2),
    "mixedae": of_recipe("mixedae", mixedae, "vit", images=2, decoder_width=32, decoder_depth=1, decoder_heads=4),
}
