"""Captions in a transformer that reads the patches of their images, too: their embedding, and what it makes of both.

B: batch, K: patches that it sees, W: words that it sees, D: channels, V: words of the vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.parts.positions import sincos
from selfsup.parts.tokens import Tokens
from selfsup.sections import InputShape


class Words(nn.Module):
    """The embedding of the tokens of a caption: of each number and place, and one that says that it is a word.

    M3AE (arXiv 2205.14204), section 3, whose places are sines and cosines. shape: of captions. std: the deviation of
    the first embeddings of numbers. further: numbers after the vocabulary, such as of a masked word.
    """

    positions: Tensor

    def __init__(self, shape: InputShape, dim: int, *, std: float, further: int = 0) -> None:
        super().__init__()
        self.vocabulary, [self.length] = shape.vocabulary, shape.sizes
        self.table = nn.Embedding(shape.vocabulary + further, dim)
        self.kind = nn.Parameter(torch.empty(1, dim))
        self.register_buffer("positions", sincos(shape.sizes, dim), persistent=False)
        nn.init.normal_(self.table.weight, std=std)
        nn.init.normal_(self.kind, std=0.02)

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, W, 1) tokens -> (B, W, D)"""
        embedded: Tensor = self.table(tokens.value[..., 0])
        return embedded + F.embedding(tokens.place, self.positions) + self.kind


def read(
    encoder: TokenEncoder, patches: Tokens, words: Tensor, valid: Tensor, cover: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """(B, K, P) tokens, (B, W, D) embedded, (B, W) bool -> (B, num_prefix + K + W, D): of tokens that read each other.

    valid: the words that are read; padding is not. cover: as of the encoder.
    """
    hidden = torch.cat([encoder.embedded(patches, cover), words], dim=1)
    return encoder.encode(hidden, patches.grid, patches.place, attended(valid, hidden.shape[1]))


def attended(valid: Tensor, tokens: int) -> Tensor:
    """(B, W) bool -> (B, 1, 1, tokens) bool: of so many tokens, whose last are words, those that are read"""
    return F.pad(valid, (tokens - valid.shape[1], 0), value=True)[:, None, None]


def validity(tokens: Tokens) -> Tensor:
    """-> (B, W) bool: the words that are no padding"""
    valid = tokens.valid
    return torch.ones_like(tokens.value[..., 0], dtype=torch.bool) if valid is None else valid


def word_entropy(logits: Tensor, numbers: Tensor, counted: Tensor) -> Tensor:
    """(B, W, V), (B, W) int64, (B, W) bool -> (): cross-entropy, averaged over the counted words of a sample, then over
    samples; 0 of one without such words, as M3AE's code (arXiv 2205.14204)
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), numbers.flatten(), reduction="none").view_as(numbers)
    return ((losses * counted).sum(1) / counted.sum(1).clamp_min(1)).mean()
