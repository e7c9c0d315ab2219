"""UPerNet against transformers' heads, which are mmsegmentation's, and BEiT's pyramid, with the same weights."""

import pytest
import torch
from torch import Tensor, nn
from transformers import BeitBackbone, BeitConfig, UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from selfsup.parts.upernet import UPerNet

DIM, CLASSES, WIDTH = 12, 5, 8


def ported(ours: UPerNet) -> nn.ModuleDict:
    """Return transformers' pyramid and heads with the weights of ours, which stand in another order."""
    config = UperNetConfig(hidden_size=WIDTH, num_labels=CLASSES, auxiliary_channels=WIDTH // 2)
    beit = BeitConfig(hidden_size=DIM, num_attention_heads=2, num_hidden_layers=4, image_size=32, patch_size=8)
    beit.out_features, beit.add_fpn = ["stage1", "stage2", "stage3", "stage4"], True
    fpn = BeitBackbone(beit).fpn
    pyramid = nn.ModuleList([fpn.fpn1, fpn.fpn2, nn.Identity(), fpn.fpn4])
    heads = UperNetHead(config, [DIM] * 4), UperNetFCNHead(config, [DIM] * 4)
    first, second = heads
    pairs = [(pyramid, ours.pyramid), (second.convs[0], ours.second[0]), (second.classifier, ours.second[1])]
    pairs += [(pool, own) for pool, own in zip(first.psp_modules.children(), ours.pools, strict=True)]
    pairs += [(first.bottleneck, ours.top), (first.fpn_bottleneck, ours.fused), (first.classifier, ours.head)]
    pairs += zip([*first.lateral_convs, *first.fpn_convs], [*ours.sides, *ours.smoothed], strict=True)
    for theirs, own in pairs:
        values = [value for name, value in own.state_dict().items() if "num_batches" not in name]
        names = [name for name in theirs.state_dict() if "num_batches" not in name]
        theirs.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return nn.ModuleDict({"pyramid": pyramid, "first": first, "second": second})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grid", [4, 6])
def test_values_and_gradients_are_those_of_transformers(grid: int, training: bool) -> None:
    torch.manual_seed(0)
    ours = UPerNet(DIM, CLASSES, WIDTH)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight), nn.init.uniform_(module.running_mean), nn.init.uniform_(module.running_var)
    theirs, maps = ported(ours).double().train(training), list(torch.randn(4, 3, DIM, grid, grid).double())
    ours.double().train(training)
    own, other = ([one.clone().requires_grad_() for one in maps] for _ in range(2))
    levels = [level(one) for level, one in zip(theirs["pyramid"], other, strict=True)]
    logits, expected = ours(own), (theirs["first"](levels), theirs["second"](levels))
    for value, same in zip(logits, expected, strict=True):
        torch.testing.assert_close(value, same)
    assert logits[0].shape == (3, CLASSES, 4 * grid, 4 * grid)
    slopes = [torch.autograd.grad(total(*made), given) for made, given in ((logits, own), (expected, other))]
    for slope, same in zip(*slopes, strict=True):
        torch.testing.assert_close(slope, same)


def total(first: Tensor, second: Tensor) -> Tensor:
    return first.square().mean() + second.square().mean()


def test_a_map_of_one_place_has_a_pyramid() -> None:
    first, second = UPerNet(4, 3, 4).eval()(list(torch.randn(4, 1, 4, 1, 1)))
    assert (first.shape, second.shape) == ((1, 3, 4, 4), (1, 3, 1, 1))
