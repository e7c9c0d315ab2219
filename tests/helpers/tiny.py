"""The smallest encoder that tests train, and one on disk that nothing has trained."""

from pathlib import Path
from typing import Any

import torch

from selfsup.encoder import build
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.pretrained import notes
from selfsup.saved import save_encoder
from selfsup.sections import Backbone

BACKBONE: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "image_size": 32,
    "patch_size": 8,
    "width": 32,
    "depth": 1,
    "heads": 2,
}
STATS = ImageStats(channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def write_encoder(backbone: Backbone, folder: Path, crop: float | None = None) -> Path:
    """Write an encoder at random weights, none of which is zero or one; return the file."""
    torch.manual_seed(0)
    encoder = build(backbone)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    path = folder / "encoder.safetensors"
    save_encoder(encoder, backbone, path, notes=notes("image", STATS, crop))
    return path
