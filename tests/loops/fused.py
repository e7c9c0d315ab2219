"""Audiovisual MAE and MAViL, of images or clips and sounds, patch by patch, at the settings of their recipes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method

from .authors import warm
from .joint import through
from .modalities import BETAS, learned, of_patches
from .ours import Trained
from .recipes import of_recipe

TOWERS = {"image": "encoders.image", "audio": "encoders.audio", "joint_blocks": "joint_blocks"}
AUDIOVISUAL, MAVIL = TOWERS | {"decoder": "decoder"}, TOWERS | {"decoders": "decoders"}
Parts = nn.ModuleDict
Places = dict[str, list[int]]  # of each modality


def split(batch: Batch, number: int) -> tuple[dict[str, Tensor], Places, Places]:
    """Return of a sample the values of patches of each modality, and the places that are visible, and hidden."""
    views = {view.modality: view for view in batch.views}
    keep = {name: view.mask.keep[number].tolist() for name, view in views.items()}
    hide = {name: view.mask.hide[number].tolist() for name, view in views.items()}
    return {name: view.value.value[number] for name, view in views.items()}, keep, hide


def together(parts: Parts, values: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
    """-> (1 + K, D) of each modality: class token and patches, after the joint blocks"""
    apart = [of_patches(parts[name].trunk, values[name], places[name]) for name in values]
    joint = parts["joint_blocks"]
    x = joint.norm(through(joint.blocks, torch.cat(apart)))
    return dict(zip(values, x.split([len(part) for part in apart]), strict=True))


def filled(x: Tensor, keep: list[int], token: Tensor, positions: Tensor) -> Tensor:
    """(1 + K, d) -> (1 + N, d): with a mask token where none is visible"""
    visible = dict(zip(keep, x[1:], strict=True))
    return torch.cat([x[:1], torch.stack([visible.get(n, token[0, 0]) + row for n, row in enumerate(positions)])])


def wrong_by(painted: Tensor, wanted: Tensor, hide: list[int]) -> Tensor:
    return torch.stack([(painted[place] - wanted[place]).square().mean() for place in hide]).mean()


def audiovisual_loss(parts: Parts, batch: Batch) -> Tensor:
    """-> (): half of either modality's error"""
    decoder, losses = parts["decoder"], []
    for number in range(len(batch.sample)):
        values, keep, hide = split(batch, number)
        for name, x in together(parts, values, keep).items():
            x = filled(decoder.embeds[name](x), keep[name], decoder.mask_tokens[name], decoder.places[name].positions)
            painted = decoder.heads[name](decoder.norm(through(decoder.blocks, x))[1:])
            losses.append(wrong_by(painted, values[name], hide[name]))
    return torch.stack(losses).mean()


def found(queries: list[Tensor], keys: list[Tensor], temperature: float) -> Tensor:
    """-> (): the cross-entropy of each query's own key"""
    losses = []
    for number, query in enumerate(queries):
        alike = torch.stack([F.cosine_similarity(query, key, dim=0) / temperature for key in keys]).exp()
        losses.append(-(alike[number] / alike.sum()).log())
    return torch.stack(losses).mean()


def normal(patches: Tensor) -> Tensor:
    return torch.stack([(patch - patch.mean()) / (patch.var() + 1e-6).sqrt() for patch in patches])


def mavil_loss(parts: Parts, batch: Batch, targets: Callable[[int], dict[str, Tensor]] | None = None) -> Tensor:
    """-> (): errors, and contrasts of both and of each. targets: of a sample, in the place of normalized values."""
    names = [view.modality for view in batch.views]
    errors, means = [], {f"{name}{mask}": list[Tensor]() for name in names for mask in (0, 1)}
    for number in range(len(batch.sample)):
        values, keep, hide = split(batch, number)
        wanted = targets(number) if targets else {name: normal(own) for name, own in values.items()}
        for name, x in together(parts, values, keep).items():
            decoder = parts["decoders"][name]
            x = filled(decoder.embed(x), keep[name], decoder.mask_token, decoder.places.positions)
            painted = decoder.head(decoder.norm(through(decoder.blocks, x))[1:])
            errors.append(wrong_by(painted, wanted[name], hide[name]))
            for mask, places in enumerate((keep[name], hide[name][: len(keep[name])])):
                means[f"{name}{mask}"].append(of_patches(parts[name].trunk, values[name], places)[1:].mean(0))
    (sight, sight_again), (sound, sound_again) = ([means[f"{name}{mask}"] for mask in (0, 1)] for name in names)
    inter = (found(sight, sound, 0.1) + found(sound, sight, 0.1)) / 2
    intra = (found(sight, sight_again, 1.0) + found(sound, sound_again, 1.0)) / 2
    return 2 * torch.stack(errors).mean() + 0.1 * inter + 0.01 * intra


def audiovisual_mae(method: Method, batches: list[Batch]) -> Trained:
    """pretrain.py of the authors' configurations for AudioSet."""
    return learned(method, batches, AUDIOVISUAL, audiovisual_loss, warm(3e-4 * 2), betas=BETAS)


def mavil(method: Method, batches: list[Batch]) -> Trained:
    return learned(method, batches, MAVIL, mavil_loss, warm(2e-4 * 2), betas=BETAS)


SMALL = {"mask_ratio": 0.5, "audio_ratio": 0.9, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
LOOPS = {
    "audiovisual_mae": of_recipe("audioset_clips/audiovisual_mae", audiovisual_mae, "vit", fusion_depth=1, **SMALL),
    "mavil": of_recipe("audioset_clips/mavil", mavil, "vit", fusion_depth=1, **SMALL)._replace(samples=4),
}
