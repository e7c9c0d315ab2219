"""MAE on clips against transformers' VideoMAEForPreTraining: the same weights, tubes and pixels, loss and gradient."""

import pytest
import torch
from small import shake
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from transformers_names import compare_gradients

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.errors import SpecError
from selfsup.method import Method, TrainInfo, load
from selfsup.parts.patch import patchify
from selfsup.pipelines.modalities.video import Video, VideoInput
from selfsup.sections import Backbone, Duration, InputShape, Setup, Train
from selfsup.tubemask import TubeMask

SIZES, GRID = (8, 16, 16), (4, 4, 4)
MAE = load("mae")
KNOBS = MAE.Hyper(
    mask="tube", norm_pix_loss=True, norm_channels=True, decoder_width=32, decoder_depth=2, decoder_heads=4
)
BACKBONE = Backbone(
    name="vit_base_patch16_gap_224", image_size=16, patch_size=4, width=48, depth=2, heads=3, pool="mean"
)
CONFIG = VideoMAEConfig(
    image_size=16,
    patch_size=4,
    num_frames=8,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=4 * 48,
    layer_norm_eps=1e-6,
    use_mean_pooling=False,  # which leaves out the encoder's last norm
    decoder_hidden_size=32,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=4 * 32,
)
NAMES = {
    "encoders.video.trunk.blocks": "videomae.encoder.layer",
    "encoders.video.trunk.norm": "videomae.layernorm",
    "encoders.video.trunk.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "decoder.blocks": "decoder.decoder_layers",
    "decoder.embed": "encoder_to_decoder",
    "decoder.mask_token": "mask_token",
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
ABSENT = ("key.bias", "encoder_to_decoder.bias", "pos_embed")  # in theirs: keys' changes nothing, nor do zeros


def small() -> Method:
    torch.manual_seed(0)
    trunk = encoder.build(BACKBONE, shape=InputShape(3, SIZES, (2,)))
    made = load("mae")(KNOBS, {"video": trunk}, TrainInfo(4, 3, 10, 2, sizes=SIZES))
    shake(made)
    torch.nn.init.zeros_(made.decoder.embed.bias)
    return made


def renamed(ours: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    theirs: dict[str, torch.Tensor] = {}
    for name, value in ours.items():
        for own, other in NAMES.items():
            name = name.replace(own, other)
        parts = dict(zip(("query", "key", "value"), value.chunk(3), strict=True)) if "qkv" in name else {"": value}
        theirs |= {name.replace("attn.qkv", f"attention.attention.{part}"): piece for part, piece in parts.items()}
    return {name: value for name, value in theirs.items() if not name.endswith(ABSENT)}


def test_the_loss_of_videomae_is_transformers_in_value_and_gradient() -> None:
    """Their clips are normalized by ImageNet's moments, ours by any; a patch's own take both away."""
    method, theirs = small(), VideoMAEForPreTraining(CONFIG)
    theirs.load_state_dict(renamed(method.state_dict()), strict=True)
    theirs.decoder.norm.eps = 1e-6
    theirs.videomae.embeddings.position_embeddings = method.backbone.position.detach()
    theirs.position_embeddings = method.decoder.places.positions[None]
    clips, mask = torch.randn(4, 3, *SIZES), TubeMask(0.75).draw(torch.rand(4, 16), GRID)
    expected = theirs(clips.transpose(1, 2), bool_masked_pos=mask.removed).loss
    views = Video().views(method.views(KNOBS), SIZES, VideoInput(frames=8))
    batch = blank_batch(views, (2, 4, 4), 4)
    view = batch.views[0]._replace(value=patchify(clips, (2, 4, 4)), mask=mask)
    loss = method(batch._replace(views=(view,))).loss
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    compare_gradients(method, theirs, loss, expected, renamed)


def test_pictures_have_each_channels_own_mean_and_deviation() -> None:
    """A decoder that always says 1 paints one deviation above the mean of each channel of each true patch."""
    method = small()
    torch.nn.init.zeros_(method.decoder.head.weight)
    torch.nn.init.ones_(method.decoder.head.bias)
    views = Video().views(method.views(KNOBS), SIZES, VideoInput(frames=8))
    batch = blank_batch(views, (2, 4, 4), 4)
    clips = torch.randn(4, 3, *SIZES)
    batch = batch._replace(views=(batch.views[0]._replace(value=patchify(clips, (2, 4, 4))),))
    patches = clips.view(4, 3, 4, 2, 4, 4, 4, 4).permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(4, 64, 32, 3)
    expected = patches.mean(dim=2, keepdim=True) + patches.std(dim=2, keepdim=True)
    painted = method.reconstruct(batch).view(4, 64, 32, 3)
    torch.testing.assert_close(painted, expected.expand_as(painted), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("hyper", "path"), [({"mask": "tube"}, "mask"), ({"norm_channels": True}, "norm_channels")])
def test_knobs_without_effect_on_images_are_errors(hyper: dict[str, object], path: str) -> None:
    setup = Setup(Backbone(), Train(duration=Duration(steps=1)), 1, (224, 224))
    errors = list(MAE.check(MAE.Hyper(**hyper), setup))
    assert [isinstance(error, SpecError) and f"hyper.{path}" in error.paths for error in errors] == [True]
