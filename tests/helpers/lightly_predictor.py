"""I-JEPA's predictor as lightly has it, with the weights of ours."""

import torch
from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM  # type: ignore[import-untyped]
from torch import Tensor, nn

from selfsup.method import Method

NAMES = {
    "embed": "predictor_embed",
    "head": "predictor_proj",
    "mask_token": "decoder.mask_token",
    "blocks": "decoder.blocks",
    "norm": "decoder.norm",
}


def theirs(method: Method) -> IJEPAPredictorTIMM:
    """Return that of an encoder of 48 channels, 16 patches and no class token."""
    predictor = IJEPAPredictorTIMM(num_patches=16, depth=1, mlp_dim=48, predictor_embed_dim=24, num_heads=3)
    state = {_rename(name): value for name, value in _ours(method).state_dict().items()}
    missing = predictor.load_state_dict(state, strict=False)
    assert missing.missing_keys == ["decoder.pos_embed"]  # the same sines and cosines, drawn by lightly
    return predictor


def compare_gradients(method: Method, predictor: IJEPAPredictorTIMM, loss: Tensor, expected: Tensor) -> None:
    """Compare gradients of a loss and of lightly's, at all weights of the encoder and of the predictor."""
    shared = [weight for weight in method.backbone.parameters() if weight.requires_grad]
    own = dict(_ours(method).named_parameters())
    other = [predictor.get_parameter(_rename(name)) for name in own]
    ours, slopes = torch.autograd.grad(loss, [*shared, *own.values()]), torch.autograd.grad(expected, [*shared, *other])
    torch.testing.assert_close(ours, slopes, rtol=1e-3, atol=1e-6)


def _ours(method: Method) -> nn.Module:
    assert isinstance(method.predictor, nn.Module)
    return method.predictor


def _rename(name: str) -> str:
    first, *rest = name.split(".")
    return ".".join([NAMES[first], *rest])
