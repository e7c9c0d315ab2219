"""Crops of all sizes in one sequence give the loss and gradient of a call for each size, in double precision."""

from collections.abc import Callable

import pytest
import torch
from precision import double_precision
from small import BACKBONES
from timm.layers import DropPath
from torch import Tensor

from selfsup import encoder
from selfsup.method import Batch, Method, load, names
from selfsup.parts.patch import patchify

Make = Callable[..., tuple[Method, Batch]]


def stepped(method: Method, batch: Batch) -> tuple[int, dict[str, Tensor]]:
    """Return calls of the student's first block; loss and records, gradients, and buffers after the step."""
    calls = list[None]()
    method.backbone.trunk.blocks[0].register_forward_pre_hook(lambda *_: calls.append(None))
    with double_precision():
        out = method.double()(batch)
        out.loss.backward()
        method.after_step(0.5, out.aux)
    grads = {f"grad {name}": weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    return len(calls), {"loss": out.loss, **out.log, **grads, **dict(method.named_buffers())}


@pytest.mark.parametrize("name", [name for name in names() if load(name).packs])
def test_one_sequence_is_a_call_for_each_size(name: str, setting: Make) -> None:
    method, batch = setting(name, "vit", double=True)
    calls, expected = stepped(method, batch)
    method, batch = setting(name, "vit", double=True)
    method.backbone.pack()
    packed, found = stepped(method, batch)
    assert (calls, packed) == (2, 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_parts_of_attention_that_few_vits_have() -> None:
    backbone = BACKBONES["vit"].model_copy(update={"qk_norm": True, "pool": "mean_norm"})
    with double_precision():
        trunk = encoder.build(backbone)
        for weight in trunk.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        views = [patchify(torch.randn(number, 3, side, side), 4) for number, side in ((4, 16), (6, 8))]
        expected = trunk.pooled_each(views)
        trunk.pack()
        torch.testing.assert_close(trunk.pooled_each(views), expected, rtol=1e-9, atol=1e-11)


def test_stochastic_depth_leaves_out_whole_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, shapes = encoder.build(BACKBONES["vit"].model_copy(update={"drop_path": 0.5})).train(), []
    monkeypatch.setattr(DropPath, "forward", lambda _, x: shapes.append(tuple(x.shape)) or x)
    trunk.pack()
    trunk.pooled_each([patchify(torch.randn(number, 3, side, side), 4) for number, side in ((4, 16), (6, 8))])
    assert shapes == [(4, 17, 48), (6, 5, 48)] * 2, "of the second block; the first drops none"
