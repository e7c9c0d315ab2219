"""A batch in pieces is the whole batch: loss, gradient and all that moves after the step, in double precision."""

from collections.abc import Callable

import pytest
import torch
from precision import double_precision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from selfsup import encoder
from selfsup.encoder import Encoder
from selfsup.method import Batch, Method, load, names
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone
from selfsup.train import backward, cut

PIECES = 4
Make = Callable[..., tuple[Method, Batch]]


def without_batch_norm(method: Method) -> None:
    """Encoders normalize over the channels of each image instead."""
    for trunk in [module for module in method.modules() if isinstance(module, Encoder)]:
        for parent in list(trunk.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, nn.GroupNorm(1, child.num_features))


def stepped(method: Method, batch: Batch, pieces: int) -> dict[str, Tensor]:
    """Loss and records, gradients, and buffers after the step."""
    with double_precision():
        out = backward(method, batch, accumulate=cut(method, pieces))
        method.after_step(0.5, out.aux)
    grads = {f"grad {name}": weight.grad for name, weight in method.named_parameters() if weight.requires_grad}
    return {"loss": out.loss, **out.log, **grads, **dict(method.named_buffers())}


@pytest.mark.parametrize("name", names())
def test_pieces_are_the_whole(name: str, setting: Make) -> None:
    kind, found = "vit" if "vit" in load(name).backbones else "narrow cnn", []
    for pieces in (1, PIECES):
        method, batch = setting(name, kind, double=True)
        without_batch_norm(method)
        found.append(stepped(method.double(), batch, pieces))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


def test_micro_batches_are_not(setting: Make) -> None:
    """In 4 pieces of 8 samples each view would be told from 3 others, not from 15: the loss falls by about ln 5."""
    whole, cut_up = (stepped(*setting("simclr", double=True), 1), setting("simclr", double=True))
    apart = backward(*cut_up, accumulate=PIECES)
    assert whole["loss"] - apart.loss > 0.5 * torch.tensor(5.0).log()


def test_random_layers_draw_the_same_in_both_computations() -> None:
    trunk = encoder.build(Backbone(name="vit_tiny_patch16_224", image_size=16, patch_size=4, depth=4, drop_path=0.5))
    value, coord = torch.randn(8, 16, 48), torch.zeros(8, 16, 2, dtype=torch.int64)
    view = Tokens(value, coord, (4, 4))
    parts = [Tokens(value[rows], coord[rows], (4, 4)) for rows in (slice(0, 4), slice(4, 8))]
    expected = gradients(trunk, lambda: torch.cat([trunk.pooled(part) for part in parts]))
    trunk.pieces = 2
    torch.testing.assert_close(gradients(trunk, lambda: trunk.pooled(view)), expected)


def test_running_statistics_move_once_a_piece() -> None:
    backbone = Backbone(name="resnet18", image_size=16, stem="small", width=8)
    (apart, cut_up), images = (encoder.build(backbone) for _ in range(2)), torch.randn(8, 3, 16, 16)
    cut_up.load_state_dict(apart.state_dict())
    cut_up.pieces = 2
    expected = gradients(apart, lambda: torch.cat([apart.pooled(part) for part in images.chunk(2)]))
    torch.testing.assert_close(gradients(cut_up, lambda: cut_up.pooled(images)), expected)
    torch.testing.assert_close(dict(cut_up.named_buffers()), dict(apart.named_buffers()))


def gradients(trunk: Encoder, pool: Callable[[], Tensor]) -> list[Tensor]:
    """Return the gradients of the same random layers, each time."""
    torch.manual_seed(1)
    trunk.zero_grad()
    pool().square().mean().backward()
    return [weight.grad for weight in trunk.parameters() if weight.grad is not None]


def test_pieces_in_bf16(setting: Make) -> None:
    losses = [
        backward(method, batch, precision="bf16", accumulate=cut(method, pieces)).loss
        for pieces in (1, PIECES)
        for method, batch in [setting("simclr")]
    ]
    torch.testing.assert_close(*losses, rtol=0.01, atol=0)


def test_pieces_do_not_wait_for_the_device(setting: Make) -> None:
    method, batch = setting("simclr")
    with FakeTensorMode(allow_non_fake_inputs=True):
        backward(method, batch, accumulate=cut(method, PIECES))
