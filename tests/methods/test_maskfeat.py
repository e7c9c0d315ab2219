"""MaskFeat against the paper's definition: gradients counted pixel by pixel, features by timm's own modules."""

import numpy as np
import pytest
import torch
from histograms import histograms, of_patches
from small import shake

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.cubemask import CubeMask
from selfsup.errors import SpecError
from selfsup.masks import AxisMask, FilledBlockMask
from selfsup.method import TrainInfo, load
from selfsup.parts.patch import patchify, unpatchify
from selfsup.pipelines.modalities.video import Video, VideoInput
from selfsup.sections import Backbone, Duration, InputShape, Setup, Train

MaskFeat = load("maskfeat")


def test_the_loss_is_the_papers_in_value_and_gradient(setting) -> None:
    method, batch = setting("maskfeat", double=True, samples=2)
    tokens, removed = batch.views[0].value, batch.views[0].mask.removed
    pixels = unpatchify(tokens.value, grid=(4, 4), patch=4)
    trunk = method.backbone.trunk
    embedded = torch.where(removed[..., None], method.mask_token, trunk.patch_embed(pixels))
    hidden = trunk.norm(trunk.blocks(trunk._pos_embed(embedded)))[:, 1:]
    expected = (method.head(hidden) - of_patches(pixels))[removed].square().mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_a_patch_of_16_pixels_has_108_values_and_its_views_are_the_papers() -> None:
    """Section 3.2: 2 x 2 cells of 9 bins of 3 channels. Blocks over 40 % of 196 patches."""
    [crop] = MaskFeat.views(MaskFeat.Hyper()).specs
    assert crop.mask == FilledBlockMask(0.4)
    assert crop.mask.typical((14, 14)) == (118, 78)
    assert (crop.scale, crop.flip, crop.jitter) == ((0.5, 1.0), 0.5, 0.0)


def test_hidden_pixels_stay_hidden_but_for_the_target(setting) -> None:
    method, batch = setting("maskfeat")
    painted = method.reconstruct(batch)
    batch.views[0].value.value.masked_fill_(batch.views[0].mask.removed[..., None], 1e3)
    assert method.reconstruct(batch).equal(painted)


@pytest.mark.parametrize(("tubelet", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1)])
def test_the_loss_on_clips_is_the_papers_in_value_and_gradient(tubelet: int, middle: int) -> None:
    """The target is of one frame of each space-time cube, the middle one."""
    torch.manual_seed(0)
    sizes, hyper = (2 * tubelet, 16, 16), MaskFeat.Hyper(mask="cube", cell=4)
    backbone = Backbone(name="vit_tiny_patch16_224", image_size=16, patch_size=8, width=24, depth=1, heads=3)
    encoders = {"video": encoder.build(backbone, MaskFeat.initialize, InputShape(3, sizes, (tubelet,)))}
    method = MaskFeat(hyper, encoders, TrainInfo(4, 3, 10, 2, sizes=sizes)).double()
    shake(method)
    clips, rule, trunk = torch.randn(2, 3, *sizes).double(), CubeMask(0.4), method.backbone.trunk
    mask = rule.draw(torch.rand(2, rule.num_draws((2, 2, 2))), (2, 2, 2))
    batch = blank_batch(Video().views(MaskFeat.views(hyper), sizes, VideoInput(frames=sizes[0])), (tubelet, 8, 8), 2)
    batch = batch._replace(views=(batch.views[0]._replace(value=patchify(clips, (tubelet, 8, 8)), mask=mask),))
    shown = clips[:, :, [middle, middle + tubelet]].transpose(1, 2).numpy()  # (2, 2, 3, 16, 16)
    cells = np.array([[[histograms(part, 4) for part in frame] for frame in clip] for clip in shown])
    target = cells.reshape(2, 2, 3, 2, 2, 2, 2, 9).transpose(0, 1, 3, 5, 4, 6, 2, 7).reshape(2, 8, 108)
    patches = trunk.patch_embed.proj(clips).flatten(2).mT
    embedded = torch.where(mask.removed[..., None], method.mask_token, patches)
    embedded = torch.cat([trunk.cls_token.expand(2, -1, -1), embedded], dim=1) + method.backbone.position
    hidden = trunk.norm(trunk.blocks(embedded))[:, 1:]
    expected = (method.head(hidden) - torch.from_numpy(target))[mask.removed].square().mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)
    assert method.reconstruct(batch).shape == batch.views[0].value.value.shape


def test_masks_of_clips_are_no_masks_of_images() -> None:
    rules = {"block": FilledBlockMask(0.4), "cube": CubeMask(0.4), "time": AxisMask((0.4,))}
    images, clips = (
        Setup(Backbone(), Train(duration=Duration(steps=1)), 1, sizes, modality=modality, leading=leading)
        for modality, sizes, leading in (("image", (224, 224), ()), ("video", (16, 224, 224), (2,)))
    )
    for mask, rule in rules.items():
        hyper = MaskFeat.Hyper(mask=mask)
        [crop] = MaskFeat.views(hyper).specs
        assert crop.mask == rule
        assert list(MaskFeat.check(hyper, clips)) == []
        errors = list(MaskFeat.check(hyper, images))
        assert len(errors) == (mask != "block")
        assert all(isinstance(error, SpecError) and error.paths[0] == "hyper.mask" for error in errors)
