"""Weights that an encoder starts from: found in files of many kinds, resampled, or refused by name."""

from fractions import Fraction
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from selfsup.encoder import build, timm_kwargs
from selfsup.errors import SpecError
from selfsup.parts.patch import patchify
from selfsup.saved import save_encoder
from selfsup.sections import Backbone

SMALL = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 2, "heads": 3}
VIT = Backbone(name="vit_tiny_patch16_224", **SMALL)
CNN = Backbone(name="resnet18", image_size=32, stem="small")


def images(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def timm_weights(path: Path, **changed: object) -> str:
    """A state dict as timm's own pretrained ones are: with a classifier, positions learned."""
    kwargs = timm_kwargs(VIT) | {"num_classes": 10} | changed
    state = timm.create_model(**kwargs).state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    return str(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_timm_weights_are_loaded_whole(name: str, tmp_path: Path) -> None:
    weights = timm_weights(tmp_path / name)
    encoder = build(VIT.model_copy(update={"weights": weights, "positions": "learned"}))
    state = load_file(weights) if name.endswith("safetensors") else torch.load(weights)["state_dict"]
    ours = encoder.trunk.state_dict()
    assert state.keys() - ours.keys() == {"head.weight", "head.bias"}
    assert all(value.equal(state[key]) for key, value in ours.items())
    assert encoder.position.requires_grad


def test_weights_of_another_image_size_are_resampled(tmp_path: Path) -> None:
    weights = timm_weights(tmp_path / "w.safetensors", img_size=64)
    encoder = build(VIT.model_copy(update={"weights": weights, "positions": "learned"}))
    theirs = timm.create_model(**timm_kwargs(VIT) | {"img_size": 64})
    theirs.load_state_dict({k: v for k, v in load_file(weights).items() if not k.startswith("head")})
    theirs.set_input_size(img_size=(32, 32))
    same(encoder(patchify(images(), 8)), theirs.forward_features(images()))


def test_an_export_is_a_start(tmp_path: Path) -> None:
    path, encoder = tmp_path / "encoder.safetensors", build(VIT)
    save_encoder(encoder, VIT, path)
    again = build(VIT.model_copy(update={"weights": str(path)}))
    assert again.pooled(patchify(images(), 8)).equal(encoder.pooled(patchify(images(), 8)))


def test_an_export_that_was_damaged_is_none(tmp_path: Path) -> None:
    """A bit of a weight flips: nothing else of the file would tell."""
    path = tmp_path / "encoder.safetensors"
    save_encoder(build(VIT), VIT, path)
    data = bytearray(path.read_bytes())
    data[-2] ^= 4
    path.write_bytes(data)
    with pytest.raises(SpecError, match=r"backbone\.weights: .*damaged"):
        build(VIT.model_copy(update={"weights": str(path)}))


def test_learned_positions_are_not_taken_for_fixed_ones(tmp_path: Path) -> None:
    weights = timm_weights(tmp_path / "w.safetensors")
    with pytest.raises(SpecError, match=r"set backbone\.positions: learned"):
        build(VIT.model_copy(update={"weights": weights}))


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    weights = timm_weights(tmp_path / "w.safetensors", depth=1)
    with pytest.raises(SpecError, match=r"(?s)w\.safetensors does not fit vit_tiny.*blocks\.1\."):
        build(VIT.model_copy(update={"weights": weights, "positions": "learned"}))


WRAPPED = {
    "Lightning": lambda state: {"state_dict": under("model.backbone.", state) | under("model.head.", HEAD), "epoch": 3},
    "DINO": lambda state: {
        "student": {name: value + 1 for name, value in under("module.backbone.", state).items()},
        "teacher": under("backbone.", state) | under("head.", HEAD),
    },
    "DINOv2": lambda state: {"teacher": under("backbone.", state) | under("dino_head.", HEAD)},
    "MoCo v3": lambda state: {
        "state_dict": under("module.base_encoder.", state)
        | {name: value + 1 for name, value in under("module.momentum_encoder.", state).items()}
    },
    "DDP": lambda state: {"model": under("module.", state)},
    "DINOv2, stripped": lambda state: under("teacher.backbone.", state) | under("teacher.dino_head.", HEAD),
    "lightly": lambda state: {"state_dict": under("backbone.vit.", state) | under("decoder.", HEAD)},
    "lightly's DINO": lambda state: {
        "state_dict": under("student_backbone.", {name: value + 1 for name, value in state.items()})
        | under("teacher_backbone.", state)
    },
    "solo-learn": lambda state: {
        "state_dict": under("backbone.", state)
        | under("momentum_backbone.", {name: value + 1 for name, value in state.items()})
    },
    "compiled": lambda state: under("_orig_mod.module.", state),
    "plain": lambda state: state,
}
HEAD = {"mlp.0.weight": torch.ones(3, 3)}


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("backbone", [VIT.model_copy(update={"positions": "learned"}), CNN], ids=["vit", "cnn"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_wherever_a_checkpoint_keeps_them(backbone: Backbone, kind: str, tmp_path: Path) -> None:
    state, path = build(backbone).trunk.state_dict(), tmp_path / "w.pth"
    torch.save(WRAPPED[kind](state), path)
    ours = build(backbone.model_copy(update={"weights": str(path)})).trunk.state_dict()
    assert all(value.equal(state[name]) for name, value in ours.items())


@pytest.mark.parametrize("keeps_idle", [True, False], ids=["children", "weights"])
def test_weights_of_a_sequential_of_a_resnets_children(keeps_idle: bool, tmp_path: Path) -> None:
    """backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1]), and lightly's without a ReLU."""
    theirs = torchvision.models.resnet18()
    children = [child for child in list(theirs.children())[:-1] if keeps_idle or child.state_dict()]
    model = nn.ModuleDict({"backbone": nn.Sequential(*children), "projection_head": nn.Linear(8, 8)})
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, tmp_path / "w.ckpt")
    torch.save(theirs.state_dict(), tmp_path / "plain.pth")
    for name in ("w.ckpt", "plain.pth"):
        ours = build(Backbone(name="resnet18", image_size=32, weights=str(tmp_path / name))).eval()
        expected = nn.Sequential(*children, nn.Flatten()).eval() if keeps_idle else None
        assert ours.trunk.layer3[0].conv1.weight.equal(theirs.layer3[0].conv1.weight)
        if expected is not None:
            torch.testing.assert_close(ours.pooled(images()), expected(images()))


def test_a_checkpoint_with_objects_is_not_run(tmp_path: Path) -> None:
    """As Lightning's with hyperparameters of a class."""
    state = under("model.", build(CNN).trunk.state_dict())
    torch.save({"state_dict": state, "hyper_parameters": Fraction(1, 2)}, tmp_path / "w.ckpt")
    with pytest.raises(SpecError, match=r"w\.ckpt .*holds Python objects beside tensors.*save its weights alone"):
        build(CNN.model_copy(update={"weights": str(tmp_path / "w.ckpt")}))


def test_weights_with_other_names_are_told_by_the_closest_part(tmp_path: Path) -> None:
    state, path = build(VIT).trunk.state_dict(), tmp_path / "w.pth"
    few = {name: value for name, value in state.items() if name.startswith(("blocks.0", "norm"))}
    torch.save({"net": under("student.", few), "x": torch.ones(1)}, path)
    with pytest.raises(SpecError, match=r"closest part, under 'net\.student\.', has 14 of the 30 weights"):
        build(VIT.model_copy(update={"weights": str(path)}))
    torch.save(torchvision.models.VisionTransformer(32, 8, 1, 2, 32, 64).state_dict(), path)
    message = (
        r"none of its 20 tensors is called as one of the 30 weights: it has names such as class_token, .*norm\.bias"
    )
    with pytest.raises(SpecError, match=message):
        build(VIT.model_copy(update={"weights": str(path)}))


def test_two_encoders_in_a_file_are_not_chosen_from_by_chance(tmp_path: Path) -> None:
    state = build(CNN).trunk.state_dict()
    torch.save(under("left.", state) | under("right.", state), tmp_path / "w.pth")
    with pytest.raises(SpecError, match=r"it holds several encoders, under left\., right\.: save the one you mean"):
        build(CNN.model_copy(update={"weights": str(tmp_path / "w.pth")}))


@pytest.mark.parametrize(
    ("own", "name", "hint"),
    [
        ("vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2", "4 register tokens, .* has 0; .*14_reg4_dinov2"),
        ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "0 register tokens, .* has 4; .*patch14_dinov2"),
    ],
)
@pytest.mark.parametrize("theirs", [True, False], ids=["Meta's names", "timm's"])
def test_registers_that_a_name_lacks_or_a_file(own: str, name: str, hint: str, theirs: bool, tmp_path: Path) -> None:
    backbone = Backbone(name=own, image_size=28, depth=1, width=64, heads=2, positions="learned")
    state = build(backbone).trunk.state_dict()
    if theirs and "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, 64), state["pos_embed"]], dim=1)
    state |= {"mask_token": torch.zeros(1, 64)} if theirs else {}
    torch.save({"teacher": under("backbone.", state)}, tmp_path / "w.pth")
    given = {"weights": str(tmp_path / "w.pth")}
    assert build(backbone.model_copy(update=given)).pooled(patchify(images(size=28), 14)).shape == (3, 64)
    with pytest.raises(SpecError, match=rf"w\.pth does not fit {name}: the file has {hint}"):
        build(backbone.model_copy(update=given | {"name": name}))
