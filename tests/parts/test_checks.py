"""What each objective refuses of its own knobs, and the settings that an error names."""

import pytest

from selfsup.method import TrainInfo, load
from selfsup.sections import Backbone, Duration, Setup, Train

INFO = TrainInfo(num_samples=16, num_classes=2, num_steps=8, steps_per_epoch=2)
VIT = Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=16)
CROPS = ("deepcluster", "dino", "dinov2", "dinov3", "ibot", "lejepa", "msn", "simdino", "simdinov2", "swav", "visreg")
NO_CROP = "do not divide into patches of 16"


def refused(method: str, info: TrainInfo | None = INFO, backbone: Backbone = VIT, **hyper: object) -> list[str]:
    kind = load(method)
    setup = Setup(backbone, Train(duration=Duration(steps=8), batch=12), 2, (32, 32))
    return [str(error) for error in kind.check(kind.Hyper(**hyper), setup, info)]


CASES = [
    *((name, {"local_size": 40}, f"hyper.local_size: local crops of 40 pixels (hyper.local_size) {NO_CROP}")
      for name in CROPS),
    ("lejepa", {"large_crops": 1, "local_crops": 0},
     "hyper.large_crops: one large crop and no small ones leave nothing to agree"),
    ("mae", {"mask": "grid", "mask_ratio": 0.5}, "hyper.mask_ratio: a grid keeps one of every four patches, a mask "
     "ratio of 0.75, not 0.5; leave it out, or use mask: random"),
    ("mae", {"mask": "block", "mask_block": 2},
     "hyper.mask_block: mask_block: 2 has no effect with mask: block; leave "
     "one of the two out"),
    ("mae", {"target": "hog", "norm_pix_loss": True}, "hyper.norm_pix_loss: norm_pix_loss: true has no effect with "
     "target: hog; leave one of the two out"),
    ("mae", {"crops": "none", "color_jitter": 0.4}, "hyper.color_jitter: color_jitter: 0.4 has no effect with crops: "
     "none; leave one of the two out"),
    *((name, {idle: 1, **other}, f"hyper.{idle}: {idle}: 1 has no effect with {why}; leave one of the two out")
      for name, idle, other, why in (
          ("mae", "components", {}, "target: pixels"), ("mae", "cell", {"target": "codes"}, "target: codes"),
          ("context_encoder", "overlap", {}, "region: shape"))),
    ("denoising", {"noise": "gaussian", "emphasis": 0.5}, "hyper.emphasis: emphasis: 0.5 has no effect with noise: "
     "gaussian; leave one of the two out"),
    ("mae", {"target": "pca", "components": 769}, "hyper.components: a patch of 768 values has no 769 components "
     "(hyper.components); use fewer"),
    ("mae", {"target": "hog", "cell": 5}, "hyper.cell: patches of 16 pixels do not divide into cells of 5 "
     "(hyper.cell)"),
    ("vqvae", {"kl_weight": 1.0}, "hyper.kl_weight: kl_weight: 1.0 has no effect with quantizer: vq; leave one of the "
     "two out"),
    ("mae", {"mask_block": 4}, "hyper.mask_block: a grid of 2 x 2 tokens does not divide into squares of 4 "
     "(hyper.mask_block)"),
    ("mixedae", {"images": 3}, "hyper.images: 4 tokens do not divide into 3 equal shares of several (hyper.images)"),
    ("essl", {"small": 40}, f"hyper.small: local crops of 40 pixels (hyper.small) {NO_CROP}"),
    *((name, {"mask_ratio": 0.9}, "hyper.mask_ratio: a mask ratio of 0.9 keeps 0 of the 4 tokens of a sample; some "
       "must stay, some must go") for name in ("droppos", "mae", "msn")),
    ("simmim", {"mask_side": 4}, "hyper.mask_side: a grid of 2 x 2 tokens does not divide into squares of 4 "
     "(hyper.mask_side)"),
    *((name, {"split": 4}, "hyper.split: the 6 samples of a forward pass do not divide into 4 groups (hyper.split)")
      for name in ("moco", "densecl")),
    ("dinov2", {"koleo_split": 5}, "hyper.koleo_split: the 12 samples of a forward pass do not divide into 5 groups "
     "(hyper.koleo_split)"),
    *((name, {"clusters": 17}, "hyper.clusters: 17 clusters, but data.train holds 16 samples. Use fewer clusters.")
      for name in ("deepcluster", "sela")),
    ("jigsaw", {"puzzle": 96, "piece": 48}, "hyper.piece: pieces of 48 pixels do not fit the cells of 32 of a puzzle "
     "of 96"),
    ("jigsaw", {"puzzle": 96, "piece": 24}, "hyper.piece: hyper.piece of 24 pixels does not divide into patches of 16"),
    ("relative_position", {"puzzle": 144, "piece": 48, "jitter": 2}, "hyper.piece: pieces of 48 pixels, which move by "
     "2, do not fit the cells of 48 of a puzzle of 144"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "hyper", "message"), CASES)
def test_a_method_refuses_knobs_that_do_not_fit(method: str, hyper: dict[str, object], message: str) -> None:
    fitting = {"clusters": 16} if "clusters" in load(method).Hyper.model_fields else {}
    fitting |= {"split": 3} if "split" in load(method).Hyper.model_fields else {}
    fitting |= {"mask_ratio": 0.5} if "mask_ratio" in load(method).Hyper.model_fields else {}
    fitting |= {"images": 2} if "images" in load(method).Hyper.model_fields else {}
    assert refused(method, **fitting) == refused(method, **{"mask": "grid"} if method == "mae" else fitting) == []
    assert refused(method, **fitting | hyper) == [message]


@pytest.mark.parametrize(
    ("method", "hyper"),
    [
        ("dino", {"local_size": 40}),
        ("mae", {"target": "hog", "cell": 5}),
        ("mae", {"target": "pca", "components": 769}),
        ("jigsaw", {"puzzle": 96, "piece": 24}),
        ("colorization", {"detail": 5}),
    ],
)
def test_patches_that_a_name_says_count_as_those_that_a_spec_says(method: str, hyper: dict[str, object]) -> None:
    own = Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=None)
    assert refused(method, backbone=own, **hyper) == refused(method, **hyper) != []


def test_what_the_data_decides_is_left_until_it_is_known() -> None:
    assert refused("sela", None, clusters=17) == []


def test_positions_that_are_not_added_cannot_be_dropped() -> None:
    beit = Backbone(name="beit_base_patch16_224", image_size=32, patch_size=16)
    assert refused("droppos", backbone=beit, mask_ratio=0.5) == [
        "backbone.name: beit_base_patch16_224 adds no positions to its patches, so none can be dropped"
    ]


def test_a_sketch_that_takes_nothing_away_is_refused() -> None:
    [error] = refused("ropim", ratio=0.9)
    assert error == "hyper.ratio: 4 patches at a ratio of 0.9 are not mixed: nothing is taken away"


def test_i_jepas_blocks_must_leave_a_context() -> None:
    assert refused("ijepa")[0].startswith("hyper.min_keep: 4 blocks leave 1 of 2 x 2 tokens, not more than 10;")


def test_more_blocks_than_there_are_cannot_be_averaged() -> None:
    shallow = Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=16, depth=2)
    assert refused("data2vec", backbone=shallow) == [
        "hyper.average: a backbone of 2 blocks has no 6 last ones to average"
    ]


def test_a_cnn_has_no_patches() -> None:
    assert refused("dino", backbone=Backbone(name="resnet18", image_size=32), local_size=40) == []
