"""Views of several sizes are what the encoder makes of each by itself, in as many calls as there are sizes."""

import pytest
import torch
from torch import Tensor

from selfsup import encoder
from selfsup.batch import View
from selfsup.parts.multicrop import pooled
from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone

BACKBONES = {
    "vit": Backbone(name="vit_tiny_patch16_224", image_size=16, patch_size=4, width=48, depth=2, heads=3),
    "cnn": Backbone(name="resnet18", image_size=16, stem="small"),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_views_of_a_size_share_a_call_and_keep_their_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    trunk = encoder.build(BACKBONES[kind]).eval()  # no statistics of the batch: a view's embedding is its own
    images = [torch.randn(3, 3, size, size) for size in (16, 8, 16, 8, 8)]
    views = images if kind == "cnn" else [patchify(image, 4) for image in images]
    expected, calls = [trunk.pooled(view) for view in views], []

    def counted(view: Tokens | Tensor) -> Tensor:
        calls.append(len(view if isinstance(view, Tensor) else view.value))
        return type(trunk).pooled(trunk, view)

    monkeypatch.setattr(trunk, "pooled", counted)
    shown = [View("image", view, None, torch.zeros(3, 5)) for view in views]
    torch.testing.assert_close(pooled(trunk, shown), expected, rtol=1e-4, atol=1e-5)
    assert sorted(calls) == [2 * 3, 3 * 3]
