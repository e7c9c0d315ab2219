"""M3AE and UNITER, sample by sample: attention is written out, and padding is cut off, not masked."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.patch import unpatchify

from .authors import adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe

PARTS = {"backbone": "encoders.image", "words": "words", "decoder": "decoder"}
UNITERS = {"backbone": "encoders.image", "words": "words", "name": "name", "paint": "paint", "match": "match"}


def padded(batch: Batch) -> Batch:
    """Return the batch with captions of 8, 7, ... 1 tokens; padding has the number 0, as the modality gives it."""
    text = batch.views[1]
    valid = torch.arange(8) < torch.arange(8, 0, -1)[:, None]
    value = text.value._replace(value=text.value.value * valid[..., None], valid=valid)
    return batch._replace(views=(batch.views[0], text._replace(value=value)))


def through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """(T, D) -> (T, D)"""
    for block in blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).view(len(x), 3, block.attn.num_heads, -1).permute(1, 2, 0, 3)
        weight = (torch.einsum("hqd,hkd->hqk", q, k) / q.shape[2] ** 0.5).softmax(dim=2)
        x = x + block.attn.proj(torch.einsum("hqk,hkd->qhd", weight, v).flatten(1))
        x = x + block.mlp(block.norm2(x))
    return x


def waves(places: list[int], dim: int) -> Tensor:
    """-> (L, dim): sines, then cosines"""
    angles = [[place / 10000 ** (2 * wave / dim) for wave in range(dim // 2)] for place in places]
    angle = torch.tensor(angles, dtype=torch.float64).view(len(places), dim // 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def told(parts: nn.ModuleDict, image: Tensor, numbers: list[int], seen: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(N, P), words without padding, places of both that are seen -> (N, P), (L, V): all patches, and all words"""
    trunk, words, decoder, side = parts["backbone"].trunk, parts["words"], parts["decoder"], round(len(image) ** 0.5)
    patches = trunk.patch_embed(unpatchify(image[None], grid=(side, side), patch=4))[0] + trunk.pos_embed[0, 1:]
    dim, places = trunk.embed_dim, [*range(len(numbers))]
    text = words.table.weight[numbers] + waves(places, dim) + words.kind
    x = torch.cat([trunk.cls_token[0] + trunk.pos_embed[0, :1], patches[seen[0]], text[seen[1]]])
    x = decoder.embed(trunk.norm(through(trunk.blocks, x)))
    first, second = decoder.hidden[0].repeat(len(image), 1), decoder.hidden[1].repeat(len(numbers), 1)
    first = first.index_put((torch.tensor(seen[0]),), x[1 : 1 + len(seen[0])])
    second = second.index_put((torch.tensor(seen[1], dtype=torch.int64),), x[1 + len(seen[0]) :])
    first = first + decoder.places + decoder.kinds[0]
    second = second + waves(places, x.shape[1]) + decoder.kinds[1]
    x = decoder.norm(through(decoder.blocks, torch.cat([x[:1], first, second])))
    return decoder.paint(x[1 : 1 + len(image)]), decoder.name(x[1 + len(image) :])


def m3ae_loss(parts: nn.ModuleDict, batch: Batch, weight: float = 0.5) -> Tensor:
    """-> (): squared errors of hidden patches, and the entropy of hidden words, of each sample"""
    image, text, losses = *batch.views, []
    for row, patches in enumerate(image.value.value):
        valid = text.value.valid[row].sum()
        numbers = text.value.value[row, :valid, 0].tolist()
        seen = [view.mask.keep[row].tolist() for view in batch.views]
        seen[1] = [place for place in seen[1] if place < valid]
        painted, words = told(parts, patches, numbers, seen)
        error = [(painted[place] - patches[place]).square().mean() for place in image.mask.hide[row].tolist()]
        hidden = [place for place in text.mask.hide[row].tolist() if place < valid]
        entropy = [-words[place].log_softmax(0)[numbers[place]] for place in hidden] or [words.new_zeros(())]
        losses.append(torch.stack(error).mean() + weight * torch.stack(entropy).mean())
    return torch.stack(losses).mean()


def m3ae(method: Method, batches: list[Batch]) -> Trained:
    """The JAX code's optimizer, whose learned tokens and embeddings do not decay."""
    student, fixed = copied(method, PARTS), ("cls_token", "table.weight", "kind", "kinds", "hidden")

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return m3ae_loss(student, batch)

    def decay(_: int, name: str, weight: Tensor) -> float:
        return 0.05 * (weight.ndim > 1 and not name.endswith(fixed))

    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-4 * 16), decay, betas=(0.9, 0.95)))
    return trained(losses, named(student, PARTS))


def features(parts: nn.ModuleDict, patches: Tensor, text: Tensor, hidden: list[int]) -> Tensor:
    """(N, P), (W, D), places of patches that are masked -> (1 + N + W, D)"""
    trunk, side = parts["backbone"].trunk, round(len(patches) ** 0.5)
    image = trunk.patch_embed(unpatchify(patches[None], grid=(side, side), patch=4))[0]
    for place in hidden:
        image = image.index_put((torch.tensor([place]),), parts["hidden"].value)
    x = torch.cat([trunk.cls_token[0], image]) + trunk.pos_embed[0]
    return trunk.norm(through(trunk.blocks, torch.cat([x, text])))


def embedded(words: nn.Module, numbers: list[int]) -> Tensor:
    table = words.table.weight
    return table[numbers] + waves([*range(len(numbers))], table.shape[1]) + words.kind


def moved(x: Tensor, y: Tensor) -> Tensor:
    """(M, D), (N, D) -> (): IPOT as its paper's algorithm 1 has it, entry by entry"""
    cost = torch.stack([torch.stack([1 - F.cosine_similarity(a, b, dim=0) for b in y]) for a in x])
    rows, columns = len(x), len(y)
    plan, left = [[1.0] * columns for _ in x], [1 / rows] * rows
    kernel = torch.exp(-cost.detach() / 0.5).tolist()
    for _ in range(50):
        near = [[kernel[m][n] * plan[m][n] for n in range(columns)] for m in range(rows)]
        right = [1 / (columns * sum(near[m][n] * left[m] for m in range(rows))) for n in range(columns)]
        left = [1 / (rows * sum(near[m][n] * right[n] for n in range(columns))) for m in range(rows)]
        plan = [[left[m] * near[m][n] * right[n] for n in range(columns)] for m in range(rows)]
    return (cost * torch.tensor(plan, dtype=torch.float64)).sum()


def uniter_loss(parts: nn.ModuleDict, batch: Batch, transport: float = 0.1) -> Tensor:
    """-> (): masked words, masked patches and pairs, weighted 2 : 1 : 2"""
    image, text = batch.views
    words, vocabulary = parts["words"], len(parts["words"].table.weight) - 1
    captions = [row[valid, 0].tolist() for row, valid in zip(text.value.value, text.value.valid, strict=True)]
    entropy, errors, pairs = [], [], []
    for row, patches in enumerate(image.value.value):
        numbers, first, second = [*captions[row]], *batch.draws[row].tolist()
        hidden = text.mask.hide[row].tolist()
        masked, changed = (math.floor(share * len(hidden) + 0.5) for share in (0.8, 0.9))
        for rank, place in enumerate(hidden):
            if 0 < place < len(numbers) - 1:
                other = int(vocabulary * ((second + 0.6180339887 * place) % 1))
                numbers[place] = vocabulary if rank < masked else other if rank < changed else numbers[place]
        chances = parts["name"](features(parts, patches, embedded(words, numbers), [])[17:]).log_softmax(1)
        entropy += [-chances[place, captions[row][place]] for place in hidden if 0 < place < len(numbers) - 1]
        masked = image.mask.hide[row].tolist()
        painted = parts["paint"](features(parts, patches, embedded(words, captions[row]), masked)[1:17])
        weight = parts["backbone"].trunk.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        errors += [(painted[place] @ weight + parts["offset"].value - patches[place]).square() for place in masked]
        is_own = first >= 0.5
        shown = captions[row] if is_own else captions[(row + 1) % len(captions)]
        if not shown:
            continue
        x = features(parts, patches, embedded(words, shown), [])
        pairs.append(-parts["match"](x[0]).log_softmax(0)[int(is_own)])
        pairs[-1] = pairs[-1] + transport * (1 if is_own else -1) * moved(x[17:], x[1:17])
    return 2 * torch.stack(entropy).mean() + torch.stack(errors).mean() + 2 * torch.stack(pairs).mean()


class Vector(nn.Module):
    """A weight that is no module's, as one."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())


def uniter_parts(method: Method) -> nn.ModuleDict:
    vectors = {name: Vector(getattr(method, name)) for name in ("hidden", "offset")}
    return nn.ModuleDict({**copied(method, UNITERS), **vectors})


def uniter(method: Method, batches: list[Batch]) -> Trained:
    """The code's AdamW, clipped at 5, with our schedule."""
    student = uniter_parts(method)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return uniter_loss(student, batch)

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)

    def decay(_: int, __: str, weight: Tensor) -> float:
        return 0.01 * (weight.ndim > 1)

    losses, _ = learn(student, loss, batches, adamw(student, warm(5e-5), decay, betas=(0.9, 0.98), clip=clip))
    vectors = {name: student[name].value.detach() for name in ("hidden", "offset")}
    return trained(losses, named(student, UNITERS) | vectors)


SMALL = {"word_ratio": 0.5, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
LOOPS = {
    "m3ae": of_recipe("yfcc15m/m3ae", m3ae, "vit", **SMALL),
    "uniter": of_recipe("yfcc15m/uniter", uniter, "vit", word_ratio=0.6, mask_ratio=0.3),
}
