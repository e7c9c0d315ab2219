"""Pictures of what an encoder makes of samples: neighbors, patches in color, attention, a map.

N: samples, n: those shown, D: channels, T: patches.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.attention import class_attention
from selfsup.encoder import TokenEncoder
from selfsup.pretrained import PretrainedEncoder

NEAREST, HEADS = 4, 6  # neighbors of a sample, and heads of attention, that are shown at most
PERPLEXITY = 30.0  # of t-SNE, as scikit-learn has it; less of few samples

Pictures = NDArray[np.uint8]  # (n, H, W, 3)


def neighbors(features: Tensor, shown: Tensor) -> Tensor:
    """(N, D), (n,) -> (n, NEAREST): the samples of the largest cosine to each of those shown, itself left out."""
    unit = torch.nn.functional.normalize(features, dim=1)
    cosine = unit[shown] @ unit.T
    cosine[torch.arange(len(shown)), shown] = -torch.inf
    return cosine.topk(min(NEAREST, len(features) - 1), dim=1).indices


def patch_colors(patches: Tensor) -> Pictures | None:
    """(n, D, H, W) -> (n, H, W, 3): the first three principal components of all patches together as red, green, blue.

    As in DINOv2 (arXiv:2304.07193, section 7.5), without its threshold on the first. A component is signed so that its
    largest weight is positive, and runs from its 1st to its 99th percentile. None of fewer than 4 patches a sample.
    """
    number, dim, *grid = patches.shape
    if patches[0, 0].numel() < 4 or dim < 3:
        return None
    values = patches.flatten(2).mT.reshape(-1, dim).double()
    values = values - values.mean(0)
    axes = torch.linalg.eigh(values.T @ values).eigenvectors[:, -3:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    projected = values @ axes
    low, high = torch.quantile(projected, torch.tensor([0.01, 0.99]).double(), dim=0)
    colors = ((projected - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    pixels: Pictures = (255 * colors).round().byte().view(number, *grid, 3).numpy()
    return pixels


def attention_maps(model: PretrainedEncoder, raw: Tensor) -> list[Pictures] | None:
    """(n, *S, C) -> for the mean of all heads, then for each head, (n, H, W, 3): what the class token reads of patches.

    As in DINO (arXiv:2104.14294, figure 1). Each map runs from its least to its largest value. None of an encoder
    without a class token.
    """
    encoder = model.encoder
    if not isinstance(encoder, TokenEncoder) or not encoder.num_prefix:
        return None
    from matplotlib import colormaps

    view: Any = model.view_of(raw)
    heads = class_attention(encoder, view)[..., :HEADS]
    maps = torch.cat([heads.mean(2, keepdim=True), heads] if heads.shape[2] > 1 else [heads], dim=2)
    low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    shares = ((maps - low) / (high - low).clamp_min(1e-12)).mT.reshape(len(raw), -1, *view.grid)
    colors = colormaps["viridis"](shares.double().numpy(), bytes=True)[..., :3]
    return list(colors.swapaxes(0, 1))


def feature_map(features: Tensor, label: NDArray[np.int64], classes: Sequence[str]) -> Image.Image | None:
    """(N, D), (N,) -> t-SNE (van der Maaten and Hinton, JMLR 2008) of unit features, a color a class.

    None of fewer than 8 samples. Samples without a label are gray.
    """
    if len(features) < 8:
        return None
    from matplotlib import color_sequences
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    pairs = color_sequences["tab20"]  # a dark and a light one of ten hues
    colors = *pairs[::2], *pairs[1::2]
    unit = torch.nn.functional.normalize(features, dim=1).double().numpy()
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    places = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(unit)
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    for number in np.unique(label):
        color, name = ("lightgray", "no label") if number < 0 else (colors[number % len(colors)], classes[number])
        x, y = places[label == number].T
        axis.scatter(x, y, s=8, linewidths=0, color=color, label=name)
    axis.set(xticks=[], yticks=[])
    if len(np.unique(label)) <= len(colors):
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=7)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
        return Image.open(file).convert("RGB")
