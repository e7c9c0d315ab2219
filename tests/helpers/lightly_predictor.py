"""I-JEPA's predictor as lightly has it, with the weights of ours."""

from lightly.models.modules.ijepa_timm import IJEPAPredictorTIMM  # type: ignore[import-untyped]
from torch import nn

from selfsup.method import Method


def theirs(method: Method) -> IJEPAPredictorTIMM:
    """Return that of an encoder of 48 channels, 16 patches and no class token."""
    predictor = IJEPAPredictorTIMM(num_patches=16, depth=1, mlp_dim=48, predictor_embed_dim=24, num_heads=3)
    names = {"embed": "predictor_embed", "head": "predictor_proj", "mask_token": "decoder.mask_token"}
    names |= {"blocks": "decoder.blocks", "norm": "decoder.norm"}
    own, state = method.predictor, {}
    assert isinstance(own, nn.Module)
    for name, value in own.state_dict().items():
        first, *rest = name.split(".")
        state[".".join([names[first], *rest])] = value
    missing = predictor.load_state_dict(state, strict=False)
    assert missing.missing_keys == ["decoder.pos_embed"]  # the same sines and cosines, drawn by lightly
    return predictor
