"""Augmentations and layer decay of fine-tuning against timm, and a step of theirs against a loop of torch's own."""

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from timm.optim import param_groups_layer_decay

from selfsup import contract, encoder, process_contract
from selfsup.contract import BACKBONES, SIZE, random_batch
from selfsup.method import Method, TrainInfo, load
from selfsup.optim import build, param_groups
from selfsup.parts.mixing import _number, erased, mixed
from selfsup.parts.patch import unpatchify
from selfsup.pipelines.modalities.pixels.randaugment import rand_augment
from selfsup.sections import Backbone, Duration, Optim, Setup, Train
from selfsup.timm_module import own_module, seed
from selfsup.train import train
from selfsup.views import Crop, sized

VIT = Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=8, width=48, depth=3, heads=3, pool="mean_norm")
RECIPE = {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "erasing": 0.25, "rand_augment": 9, "head_std": 2e-5}
INFO = TrainInfo(num_samples=64, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(SIZE, SIZE))


def supervised(backbone: Backbone, **hyper: float) -> Method:
    torch.manual_seed(0)
    kind = load("supervised")
    return kind(kind.Hyper(**hyper), {"image": encoder.build(backbone)}, INFO)


def test_rates_fall_by_layers_as_maes_do_by_hand() -> None:
    method = supervised(VIT)
    scale = {
        name: group["lr_scale"]
        for group in param_groups(method, 0.05, layer_decay=0.75)
        for name, weight in method.named_parameters()
        if any(weight is other for other in group["params"])
    }
    trunk = "encoders.image.trunk."
    layers = {"cls_token": 0, "patch_embed.proj.weight": 0, "patch_embed.proj.bias": 0}
    layers |= {f"blocks.{n}.{part}": n + 1 for n in range(3) for part in ("attn.qkv.weight", "mlp.fc2.bias")}
    layers |= {"norm.weight": 4, "norm.bias": 4}
    for name, layer in layers.items():
        assert scale[trunk + name] == pytest.approx(0.75 ** (4 - layer))
    assert scale["head.weight"] == scale["head.bias"] == 1


@pytest.mark.parametrize("name", ["vit", "resnet18", "swin_tiny_patch4_window7_224"])
def test_rates_and_decays_are_those_of_timms_groups(name: str) -> None:
    backbone = VIT if name == "vit" else Backbone(name=name, image_size=224)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
    options = {**sizes, "global_pool": "avg", "fc_norm": True} if name == "vit" else {}
    model = timm.create_model("vit_tiny_patch16_224" if name == "vit" else name, num_classes=3, **options)
    if name == "vit":
        model.pos_embed.requires_grad_(False)
    theirs = param_groups_layer_decay(model, 0.05, model.no_weight_decay() if name == "vit" else (), layer_decay=0.65)
    names = {id(weight): title for title, weight in model.named_parameters()}
    expected = {
        names[id(weight)]: (group["lr_scale"], group["weight_decay"]) for group in theirs for weight in group["params"]
    }
    method = supervised(backbone)
    titles = {id(weight): title for title, weight in method.named_parameters()}
    own = {
        titles[id(weight)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups(method, 0.05, layer_decay=0.65)
        for weight in group["params"]
    }
    for title, (scale, decay) in own.items():
        other = title.removeprefix("encoders.image.trunk.")
        other = (
            {"norm": "fc_norm"}.get(other.partition(".")[0], other.partition(".")[0]) + other[other.find(".") :]
            if (name == "vit" and "." in other)
            else other
        )
        candidates = [key for key in expected if key == other or key.endswith(f"fc.{other.removeprefix('head.')}")]
        assert candidates, other
        if name.startswith("swin") and (other.startswith("norm.") or "bias_table" in other):
            continue  # timm counts its final norm with the last block; biases by position do not decay
        assert (scale, decay) == (pytest.approx(expected[candidates[0]][0]), expected[candidates[0]][1]), title


def test_a_whole_batch_is_mixed_as_timm_mixes_it_from_the_same_seed() -> None:
    images, label = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    kinds = set()
    for _ in range(6):
        draws = torch.rand(8, 2)
        ours = mixed(images, label, draws, mixup=0.8, cutmix=1.0, smoothing=0.1, classes=3)
        np.random.seed(_number(draws[0]))
        theirs, target = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=3)(images.clone(), label)
        assert ours.images.equal(theirs)
        assert ours.target.equal(target)
        assert ours.counted.all()
        kinds.add(bool((theirs == images).any()))
    assert kinds == {True, False}  # boxes leave pixels as they are, weights do not


def test_every_frame_of_a_clip_is_mixed_alike_and_as_its_truth_says() -> None:
    """Of a clip of zeros and one of ones: the share of ones is the truth's, whether by a weight or by a box."""
    clips, kinds = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 5, 16, 16), set()
    for _ in range(8):
        pairs = mixed(clips, torch.arange(2), torch.rand(2, 2), mixup=0.8, cutmix=1.0, smoothing=0.0, classes=2)
        assert pairs.images.equal(pairs.images[:, :1, :1].expand_as(pairs.images))
        torch.testing.assert_close(pairs.images.mean((1, 2, 3, 4)), pairs.target[:, 1])
        kinds.add(bool(((pairs.images == 0) | (pairs.images == 1)).all()))
    assert kinds == {True, False}


def test_a_pair_without_a_label_does_not_count() -> None:
    label = torch.tensor([0, -1, 1, 2])
    pairs = mixed(torch.randn(4, 3, 8, 8), label, torch.rand(4, 2), mixup=0.8, cutmix=0.0, smoothing=0.0, classes=3)
    assert pairs.counted.tolist() == [True, False, False, True]


def test_a_quarter_of_images_gets_a_box_of_normal_noise() -> None:
    images, draws = torch.full((400, 3, 16, 16), 7.0), torch.rand(400, 2)
    changed = erased(images, draws, 0.25)
    hit = (changed != images).flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.25, abs=0.07)
    noise = changed[changed != images]
    assert (noise.mean().item(), noise.std().item()) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))
    area = (changed != images)[hit].float().mean((1, 2, 3))
    assert (area > 0.01).all()
    assert (area < 0.36).all()
    assert changed.equal(erased(images, draws, 0.25))
    assert changed[5:6].equal(erased(images[5:6], draws[5:6], 0.25))  # whatever else is in the batch
    assert (images == 7).all()


def test_a_box_of_noise_is_the_same_in_every_frame_of_a_clip() -> None:
    clips = torch.full((40, 3, 5, 16, 16), 7.0)
    changed = erased(clips, torch.rand(40, 2), 0.5)
    box = changed != clips
    assert box.equal(box[:, :1, :1].expand_as(box))
    assert 10 < box.flatten(1).any(1).sum() < 30
    assert not changed.equal(changed[:, :, :1].expand_as(changed)), "the noise is not"


@pytest.mark.parametrize(
    ("modality", "sizes", "unfit"),
    [
        ("series", (64,), ["cutmix", "erasing"]),
        ("points", (128,), ["mixup", "cutmix", "erasing"]),
        ("video", (8, 32, 32), []),
    ],
)
def test_boxes_are_of_samples_that_have_two_axes(modality: str, sizes: tuple[int, ...], unfit: list[str]) -> None:
    kind = load("supervised")
    setup = Setup(VIT, Train(duration=Duration(steps=4), batch=8), 1, sizes, modality=modality)
    errors = list(kind.check(kind.Hyper(**RECIPE), setup))
    assert [error.paths[0] for error in errors] == [f"hyper.{name}" for name in unfit]


def test_rand_augment_is_timms_from_the_same_numbers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    settings = {"translate_const": 14, "img_mean": (128, 128, 128), "interpolation": Image.Resampling.BICUBIC}
    settings["magnitude_max"] = math.nextafter(10, 0)
    draws = np.random.default_rng(1).random((20, 2))
    for own in draws:
        ours = rand_augment(pixels, own, (9, 0.5), (0.5, 0.5, 0.5))
        module = own_module("data.auto_augment")
        seed(module, int(2**16 * own[0]) << 16 | int(2**16 * own[1]))
        theirs = module.rand_augment_transform("rand-m9-mstd0.5-inc1", dict(settings))(Image.fromarray(pixels))
        np.testing.assert_array_equal(ours, np.asarray(theirs))
    names = [op.name for op in rand_augment_transform("rand-m9-mstd0.5-inc1", dict(settings)).ops]
    assert "PosterizeIncreasing" in names
    assert len(names) == 15


def test_streams_differ_where_images_are_changed_on_the_host() -> None:
    assert Crop(size=16).geometry != Crop(size=16, rand_augment=(9, 0.5)).geometry


def test_ten_steps_are_those_of_a_plain_loop() -> None:
    """Mixup, smoothing, layer decay and AdamW, by timm and torch alone."""
    optim = Optim(lr=1e-2, lr_rule="none", layer_decay=0.75, weight_decay=0.05, betas=(0.9, 0.999), min_lr=1e-6)
    method, other = supervised(VIT, mixup=0.8, cutmix=1.0, smoothing=0.1), supervised(VIT, mixup=0.8, cutmix=1.0)
    views = sized(load("supervised").views(method.hyper), SIZE)
    batches = [random_batch(views, 8, 8) for _ in range(10)]
    settings = {"optim": optim, "start": 0, "steps": 10, "warmup_steps": 2, "batch_size": 8, "seed": 0}
    losses = [step.log["loss"].item() for step in train(method, method, build(method, optim), batches, **settings)]
    groups = param_groups_layer_decay(_timm(other), 0.05, ("cls_token", "pos_embed"), layer_decay=0.75)
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999))
    for number, batch in enumerate(batches):
        rate = (
            1e-2 * (number + 1) / 2
            if number < 2
            else 1e-6 + (1e-2 - 1e-6) * (1 + math.cos(math.pi * (number - 2) / 8)) / 2
        )
        for group in theirs.param_groups:
            group["lr"] = rate * group["lr_scale"]
        np.random.seed(_number(batch.draws[0, :2]))
        tokens = batch.views[0].value
        images = unpatchify(tokens.value, grid=tokens.grid, patch=8)
        images, target = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=3)(images.clone(), batch.label)
        loss = -(target * F.log_softmax(_logits(other, images), dim=1)).sum(1).mean()
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert losses[number] == pytest.approx(loss.item(), rel=1e-4)


def _timm(method: Method) -> torch.nn.Module:
    """Return timm's ViT with the weights of a method, the norm behind the mean, and its head."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, global_pool="avg", fc_norm=True, **sizes)
    trunk = method.backbone.trunk
    state = {name.replace("norm.", "fc_norm.", name.startswith("norm.")): w for name, w in trunk.state_dict().items()}
    model.load_state_dict(state | {f"head.{name}": weight for name, weight in method.head.state_dict().items()})
    model.pos_embed.requires_grad_(False)
    method.__dict__["timm"] = model
    return model


def _logits(method: Method, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = method.__dict__["timm"](images)
    return logits


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_forward_is_a_function_of_the_batch_which_stays(kind: str) -> None:
    method = supervised(BACKBONES[kind], **RECIPE)
    batch = random_batch(sized(load("supervised").views(method.hyper), SIZE), method.backbone.patch, 8)
    value = batch.views[0].value
    before = (value if isinstance(value, torch.Tensor) else value.value).clone()
    first, second = method.eval()(batch), method(batch)
    assert first.loss.equal(second.loss)
    assert (value if isinstance(value, torch.Tensor) else value.value).equal(before)
    assert first.loss.item() == pytest.approx(math.log(3), rel=1e-2)  # of a head near zero


def test_two_processes_mix_as_one_does_and_a_restored_run_goes_on_exactly(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from selfsup.knob import knob\n"
        "from selfsup.methods.supervised import Supervised\n\n\n"
        "class Mine(Supervised):\n"
        "    class Hyper(Supervised.Hyper):\n"
        '        mixup: float = knob(0.8, "")\n'
        '        cutmix: float = knob(1.0, "")\n'
        '        erasing: float = knob(0.25, "")\n'
    )
    problems = dict(process_contract.check(str(tmp_path / "mine.py")))
    assert list(problems.values()) == ["", ""]
    assert not any(dict(contract.check(str(tmp_path / "mine.py"))).values())
