import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from selfsup.blank import without_memory
from selfsup.encoder import build
from selfsup.sections import Backbone

BACKBONES = [
    Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=8, width=48, depth=2, heads=3),
    Backbone(name="resnet18", image_size=32, width=16),
]


class Log(TorchDispatchMode):
    """Keeps the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names = list[str]()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.name)
def test_a_model_without_memory_has_the_weights_of_a_real_one_and_draws_none(backbone: Backbone) -> None:
    with without_memory(), Log() as log:
        blank = build(backbone).state_dict()
    real = build(backbone).state_dict()
    assert all(weight.is_meta for weight in blank.values())
    assert {name: (weight.shape, weight.dtype) for name, weight in blank.items()} == {
        name: (weight.shape, weight.dtype) for name, weight in real.items()
    }
    assert "aten::empty.memory_format" in log.names
    assert not {name for name in log.names if "uniform" in name or "normal" in name or "clamp" in name}


def test_shapes_that_do_not_fit_are_still_refused() -> None:
    with without_memory(), pytest.raises(RuntimeError, match="broadcast"):
        torch.ones(3).add_(torch.ones(4))
