"""A small objective on small encoders, with a batch of what it asks for."""

from collections.abc import Callable

import pytest
import torch

from selfsup import encoder
from selfsup.method import Batch, Method, load
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.masks import random_mask
from selfsup.pipelines.patch import patchify
from selfsup.sections import Backbone

SIZE, PATCH = 16, 4
BACKBONES = {
    "vit": Backbone(name="vit_tiny_patch16_224", image_size=SIZE, patch_size=PATCH, width=48, depth=2, heads=3),
    "cnn": Backbone(name="resnet18", image_size=SIZE, stem="small"),
}
Setting = tuple[Method, Batch]


def setting(name: str, backbone: str = "vit", *, samples: int = 8, seed: int = 0, **hyper: object) -> Setting:
    """The objective at its initial weights, and a batch; both functions of the arguments."""
    torch.manual_seed(seed)
    kind = load(name)
    knobs = kind.Hyper(**hyper)
    trunk = encoder.build(BACKBONES[backbone])
    method = kind(knobs, {"image": trunk})
    views = kind.views(knobs)
    images = [torch.randn(samples, 3, SIZE, SIZE) for _ in views.crops]
    made = tuple(patchify(view, PATCH) if isinstance(trunk, encoder.TokenEncoder) else view for view in images)
    mask = None
    if views.mask_ratio is not None:
        assert isinstance(made[0], Tokens)
        mask = random_mask(torch.rand(made[0].valid.shape), views.mask_ratio)
    return method, Batch(made, mask, torch.arange(samples))


@pytest.fixture(name="setting", scope="session")
def _setting() -> Callable[..., Setting]:
    return setting
