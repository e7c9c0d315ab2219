"""Features that evaluations choose: against timm's layers, in plans, and where an encoder has none."""

from typing import Any

import pytest
import timm
import torch
from plans import PLACE, Home

from selfsup.encoder import TokenEncoder, build, timm_kwargs
from selfsup.errors import SpecError
from selfsup.evals.attentive import Attentive
from selfsup.feature_choice import FeatureChoice
from selfsup.parts.patch import patchify
from selfsup.pipelines.stages.encoder_source import _feature
from selfsup.sections import Backbone

SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 5, "heads": 3}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_features_of_the_last_blocks_are_made_of_timms_layers(name: str) -> None:
    backbone = Backbone(name=name, pool="mean", **SIZES)
    encoder = build(backbone).eval()
    assert isinstance(encoder, TokenEncoder)
    theirs = timm.create_model(**timm_kwargs(backbone)).eval()
    theirs.load_state_dict(encoder.trunk.state_dict())
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layers = theirs.get_intermediate_layers(images, n=4, return_prefix_tokens=True, norm=True)
    cls, mean = [prefix[:, 0] for _, prefix in layers], [patches.mean(1) for patches, _ in layers]
    expected = {
        ("cls", 4): cls,
        ("cls", 1): cls[-1:],
        ("mean", 2): mean[-2:],
        ("pooled", 3): mean[-3:],
        ("cls_mean", 1): [cls[-1], mean[-1]],
        ("cls_mean", 4): [*cls, mean[-1]],
    }
    for (kind, blocks), parts in expected.items():
        found = encoder.features(patchify(images, 8), kind, blocks)
        torch.testing.assert_close(found, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)
        assert len(parts) == FeatureChoice(kind, blocks).parts  # type: ignore[arg-type]
    torch.testing.assert_close(encoder.features(patchify(images, 8), "pooled", 1), theirs(images), rtol=1e-4, atol=1e-5)
    for blocks in (1, 3):
        tokens, choice = (
            torch.stack([patches for patches, _ in layers[-blocks:]]).mean(0),
            Attentive.Hyper(blocks=blocks).choice,
        )
        found = _feature(encoder, patchify(images, 8), choice)
        torch.testing.assert_close(found, tokens, rtol=1e-4, atol=1e-5)
        assert choice.parts == 1


def test_one_table_serves_all_that_read_the_same(home: Home) -> None:
    own = home.run(evals={"knn": {"k": 3}})
    four = {"feature": "cls", "blocks": 4}
    evals = {"knn": {"k": 3}, "spectrum": {"feature": "cls"}, "linear": four, "more": {"use": "retrieval"} | four}
    run = home.run(evals=evals)
    assert run.embeds["knn"].key == own.embeds["knn"].key
    assert run.probes["knn"].key == own.probes["knn"].key
    assert run.embeds["spectrum"] is run.embeds["knn"], "the class token is the encoder's own feature"
    assert run.embeds["more"] is run.embeds["linear"] is not run.embeds["knn"]
    assert [stage.space for stage in run.stages if stage.kind == "embed"] == ["embed", "embed/linear"]


def test_raw_samples_have_one_feature_whatever_is_read_of_an_encoder(home: Home) -> None:
    runs = home.plan(evals={"linear": {"feature": "cls_mean", "blocks": 4}}, baselines=True)
    plain = home.plan(evals={"linear": {}}, baselines=True)
    pixels, plain_pixels = (next(run for run in planned if run.method == "pixels") for planned in (runs, plain))
    assert pixels.embeds["linear"].key == plain_pixels.embeds["linear"].key
    assert runs[-1].embeds["linear"].key != plain[-1].embeds["linear"].key


def test_raw_samples_have_squares_for_keys_and_no_attention() -> None:
    raw = FeatureChoice("keys", squashed=True).of("pixels", Backbone())
    assert raw == FeatureChoice("tokens", squashed=True)
    assert FeatureChoice("attention").needs_encoder
    assert not FeatureChoice("keys").needs_encoder


@pytest.mark.parametrize(
    ("choice", "backbone", "message"),
    [
        (FeatureChoice("keys"), "resnet18", "it reads the last attention of a plain ViT, and resnet18 is none"),
        (FeatureChoice("attention"), "swin_tiny_patch4_window7_224", "it reads the last attention of a plain ViT"),
        (FeatureChoice("attention"), "vit_base_patch16_siglip_224", "of a class token, and .* has none; leave it out"),
    ],
)
def test_attention_that_an_encoder_has_not_is_refused(choice: FeatureChoice, backbone: str, message: str) -> None:
    with pytest.raises(SpecError, match=rf"evals\.it.*{message}"):
        choice.check(Backbone(name=backbone), "evals.it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "simclr", "backbone": {"name": "resnet18", "image_size": 32}, "evals__knn__feature": "cls"},
            r"evals\.knn\.feature: it reads class token, .* of a plain ViT, and resnet18 is none",
        ),
        (
            {"method": "simclr", "backbone": {"name": "resnet18", "image_size": 32}, "evals__knn__blocks": 2},
            r"evals\.knn\.blocks: it reads class token, .* resnet18 is none; use feature: pooled, blocks: 1",
        ),
        (
            {"backbone__name": "vit_base_patch16_siglip_224", "backbone__pool": "mean", "evals__knn__feature": "cls"},
            r"evals\.knn\.feature: vit_base_patch16_siglip_224 has no class token; use feature: mean",
        ),
        (
            {"method": "simclr", "backbone": {"name": "resnet18", "image_size": 32}, "evals__attentive": {"blocks": 2}},
            r"evals\.attentive\.blocks: it reads class token, .* resnet18 is none; use blocks: 1, or leave it out",
        ),
        ({"evals__knn__blocks": 13}, r"evals\.knn\.blocks: it reads the last 13 blocks, and .* has 12; set fewer"),
    ],
)
def test_a_feature_that_an_encoder_has_not_is_refused_in_the_plan(
    home: Home, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=rf"{PLACE}{message}"):
        home.plan(**changes)
