"""Backbones from outside of timm: a callable of the user's package, and vision models of transformers."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from selfsup import codebase
from selfsup.contract import CONTRACTS, example
from selfsup.encoder import PooledEncoder, build
from selfsup.errors import SpecError
from selfsup.method import load
from selfsup.pipelines.cost import cost
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.saved import restore_encoder, save_encoder
from selfsup.sections import Backbone, InputShape
from selfsup.spec import read

MODELS = """
from torch import nn
from my_lab.sizes import first

def small(width=first, image_size=0):
    assert image_size == 32
    return nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.BatchNorm2d(width), nn.ReLU())

def banded(in_chans):
    return nn.Conv2d(in_chans, 6, 4, stride=4)

def vector():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))

def tokens():
    return nn.Flatten(2)

def broken():
    raise KeyError("no such size")
"""
Lab = Callable[[str, str], None]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """(module, text): a package my_lab, as if installed, with the models above."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(name: str, text: str) -> None:
        (tmp_path / "site" / "my_lab").mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / "my_lab" / f"{name}.py").write_text(text)
        for cached in (codebase.modules, codebase._module):
            cached.cache_clear()

    for name, text in {"__init__": "", "sizes": "first = 8\n", "unused": "", "models": MODELS}.items():
        put(name, text)
    yield put
    for name in [name for name in sys.modules if name.startswith("my_lab")]:
        del sys.modules[name]


def folder(path: Path, model_type: str, **values: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type, **values}))
    return f"hf:{path}"


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
FAMILIES = {  # model type -> its config, the channels of its features, the side of its map
    "vit": (VIT, 32, 4),
    "dinov2_with_registers": (VIT | {"num_register_tokens": 3}, 32, 4),
    "siglip_vision_model": (VIT, 32, 4),
    "swin": ({"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}, 32, 4),
    "convnext": ({"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, 16, 4),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, 16, 4),
}


def built(name: str, **knobs: Any) -> PooledEncoder:
    torch.manual_seed(0)
    encoder = build(Backbone(name=name, image_size=32, **knobs))
    assert isinstance(encoder, PooledEncoder)
    return encoder.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("lab")
def test_a_callable_of_the_user_s_is_given_the_settings_that_it_names(images: torch.Tensor) -> None:
    encoder = built("my_lab.models:small", width=6)
    expected = encoder.trunk.model(images)
    assert expected.shape == (2, 6, 8, 8)
    torch.testing.assert_close(encoder.spatial(images), expected)
    torch.testing.assert_close(encoder.pooled(images), expected.mean(dim=(2, 3)))
    assert built("my_lab.models:small").dim == 8


@pytest.mark.usefixtures("lab")
def test_a_model_without_a_map_yields_its_vectors(images: torch.Tensor) -> None:
    encoder = built("my_lab.models:vector")
    assert encoder.pooled(images).equal(encoder.trunk.model(images))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_transformers_yields_vectors_and_a_map(family: str, images: torch.Tensor, tmp_path: Path) -> None:
    values, dim, side = FAMILIES[family]
    encoder = built(folder(tmp_path / "tiny", family, **values))
    assert encoder.pooled(images).shape == (2, encoder.dim) == (2, dim)
    assert encoder.spatial(images).shape == (2, dim, side, side)
    encoder.pooled(images).sum().backward()
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in encoder.named_parameters() if weight.grad is not None}


def test_tokens_are_those_of_transformers_class_token_first(images: torch.Tensor, tmp_path: Path) -> None:
    values, _, _ = FAMILIES["dinov2_with_registers"]
    name = folder(tmp_path / "tiny", "dinov2_with_registers", **values)
    token, mean = (built(name, pool=pool) for pool in ("cls", "mean"))
    hidden = token.trunk.model(pixel_values=images).last_hidden_state
    torch.testing.assert_close(token.pooled(images), hidden[:, 0])
    torch.testing.assert_close(mean.pooled(images), hidden[:, 4:].mean(dim=1))  # after the class token and 3 registers
    torch.testing.assert_close(mean.spatial(images)[:, :, 1, 2], hidden[:, 4 + 1 * 4 + 2])


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("family", ["my_lab.models:banded", *FAMILIES])
@pytest.mark.usefixtures("lab")
def test_it_sees_as_many_channels_as_the_data_have(family: str, channels: int, tmp_path: Path) -> None:
    values, dim, side = FAMILIES.get(family, ({}, 6, 8))
    name = folder(tmp_path / "tiny", family, **values) if family in FAMILIES else family
    backbone, shape = Backbone(name=name, image_size=32), InputShape(channels, (32, 32))
    encoder, images = build(backbone, shape=shape).eval(), torch.randn(2, channels, 32, 32)
    assert isinstance(encoder, PooledEncoder)
    assert encoder.spatial(images).shape == (2, dim, side, side)
    for channel in range(channels):
        without = images.clone()
        without[:, channel] = 0
        assert not encoder.pooled(without).allclose(encoder.pooled(images))
    save_encoder(encoder, backbone, tmp_path / "encoder.safetensors", shape)
    assert restore_encoder(tmp_path / "encoder.safetensors").eval().pooled(images).equal(encoder.pooled(images))


@pytest.mark.usefixtures("lab")
def test_a_callable_of_other_channels_than_the_data_is_refused() -> None:
    with pytest.raises(SpecError, match=r"small cannot see images of 32 pixels and 5 channels: .* 3 channels"):
        build(Backbone(name="my_lab.models:small", image_size=32), shape=InputShape(5, (32, 32)))


@pytest.mark.parametrize("family", ["vit", "convnext", "resnet"])
def test_given_weights_of_colors_are_summed_for_gray(family: str, tmp_path: Path) -> None:
    name = folder(tmp_path / "tiny", family, **FAMILIES[family][0])
    colors, weights = built(name), str(tmp_path / "rgb.pth")
    torch.save(colors.trunk.model.state_dict(), weights)
    gray = build(Backbone(name=name, image_size=32, weights=weights), shape=InputShape(1, (32, 32))).eval()
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(gray.pooled(image), colors.pooled(image.expand(-1, 3, -1, -1)))


def test_a_class_of_a_config_names_a_model_at_its_defaults() -> None:
    from transformers import ResNetConfig

    assert built("hf:ResNetConfig").dim == ResNetConfig().hidden_sizes[-1]


def test_crops_of_another_size_are_seen(tmp_path: Path) -> None:
    encoder = built(folder(tmp_path / "tiny", "vit", **VIT))
    assert encoder.spatial(torch.zeros(1, 3, 16, 16)).shape == (1, 32, 2, 2)


def test_a_saved_encoder_needs_no_folder(tmp_path: Path, images: torch.Tensor) -> None:
    backbone = Backbone(name=folder(tmp_path / "tiny", "vit", **VIT), image_size=32)
    encoder = build(backbone).eval()
    save_encoder(encoder, backbone, tmp_path / "encoder.safetensors")
    (tmp_path / "tiny" / "config.json").unlink()
    with torch.inference_mode():  # as where images are embedded
        restored = restore_encoder(tmp_path / "encoder.safetensors").eval()
        assert restored.pooled(images).equal(encoder.pooled(images))


@pytest.mark.parametrize("wrapped", ["model", "vit for classification"])
def test_given_weights_are_those_of_transformers(wrapped: str, tmp_path: Path, images: torch.Tensor) -> None:
    """Also of a model with a head, without the pooler, which no features depend on."""
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    torch.manual_seed(5)
    config = ViTConfig(**VIT, image_size=32)
    model = ViTModel(config) if wrapped == "model" else ViTForImageClassification(config)
    model.save_pretrained(tmp_path / "tiny")
    weights = str(tmp_path / "tiny" / "model.safetensors")
    encoder = built(f"hf:{tmp_path / 'tiny'}", weights=weights)
    trunk = model if wrapped == "model" else model.vit
    torch.testing.assert_close(encoder.pooled(images), trunk.eval()(pixel_values=images).last_hidden_state[:, 0])
    with pytest.raises(SpecError, match=r"does not fit hf:.*different: "):
        built(folder(tmp_path / "other", "vit", **VIT | {"hidden_size": 16}), weights=weights)


@pytest.mark.parametrize("name", ["my_lab.models:small", "vit"])
@pytest.mark.usefixtures("lab")
def test_an_objective_on_it_keeps_its_contracts(name: str, tmp_path: Path) -> None:
    name = folder(tmp_path / "tiny", "vit", **VIT) if name == "vit" else name
    backbone = Backbone(name=name, image_size=32)
    for contract in CONTRACTS.values():
        assert contract(lambda seed: example(load("simclr"), backbone, seed)) == ""


@pytest.fixture
def spec(tmp_path: Path, make: Callable[..., Manifest]) -> Callable[..., Path]:
    """(name of the backbone, method=, **knobs) -> a spec that names it."""
    make(tmp_path, number=8)

    def spec(name: str, method: str = "simclr", **knobs: Any) -> Path:
        shards = str(tmp_path / "shards")
        sections = {"data": {"train": shards, "val": shards}, "train": {"duration": {"steps": 2}, "batch": 8}}
        backbone = {"name": name, "image_size": 32} | knobs
        text = {"name": "own", "method": method, "backbone": backbone, "evals": {"knn": {"k": 3}}, **sections}
        (path := tmp_path / "own.yaml").write_text(yaml.safe_dump(text))
        return path

    return spec


def planned(spec: Path) -> dict[str, PlannedRun]:
    return {run.method: run for run in plan(read(spec), spec.parent / "home")}


def test_what_it_computes_is_part_of_the_id(lab: Lab, spec: Callable[..., Path]) -> None:
    before = planned(spec("my_lab.models:small"))
    assert before["simclr"].pretrain
    assert {"my_lab.models", "my_lab.sizes"} <= set(codebase.modules(*before["simclr"].pretrain.entries))
    price = cost(before["simclr"].run, before["simclr"].info)
    assert price.encoder_parameters == 8 * 3 * 4 * 4 + 8 + 8 + 8  # convolution, its bias, scale and shift
    lab("unused", "changed = 1\n")
    assert {name: run.id for name, run in planned(spec("my_lab.models:small")).items()} == {
        name: run.id for name, run in before.items()
    }
    lab("sizes", "first = 8\nchanged = 1\n")
    after = planned(spec("my_lab.models:small"))
    assert [name for name in before if after[name].id == before[name].id] == ["pixels"]


def test_a_folder_counts_by_its_config_wherever_it_lies(spec: Callable[..., Path], tmp_path: Path) -> None:
    names = folder(tmp_path / "a", "vit", **VIT), folder(tmp_path / "b", "vit", **VIT)
    other = folder(tmp_path / "c", "vit", **VIT | {"hidden_size": 64})
    first, same, third = (planned(spec(name))["simclr"].id for name in (*names, other))
    assert first == same != third


def test_a_relative_folder_is_found_from_any_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "tiny", "vit", **VIT)
    monkeypatch.chdir(tmp_path)
    assert Backbone(name="hf:tiny").name == f"hf:{tmp_path / 'tiny'}"
    assert Backbone(name="hf:ViTConfig").name == "hf:ViTConfig"


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("my_lab.models", {}, "backbone.name: timm has no model 'my_lab.models'"),
        ("my_lab.models:large", {}, "backbone.name: my_lab.models has no callable large"),
        ("no_such_lab:small", {}, "backbone.name: no module no_such_lab is installed"),
        ("a:b:c", {}, "backbone.name: expected module:callable, as in my_lab.models:small, or hf:"),
        ("my_lab.models:small", {"heads": 2}, "backbone.heads: has no effect on my_lab.models:small"),
        ("my_lab.models:small", {"pool": "mean"}, "backbone.pool: has no effect on my_lab.models:small"),
        ("my_lab.models:broken", {}, "backbone.name: my_lab.models:broken cannot be built: 'no such size'"),
        ("my_lab.models:tokens", {}, "my_lab.models:tokens cannot see images of 32 pixels: it returns (1, 3, 1024)"),
        ("hf:NoSuchConfig", {}, "has no NoSuchConfig"),
        ("hf:/nowhere", {}, "or a folder with its config.json: /nowhere: No such file or directory"),
        ("hf:BertConfig", {}, "hf:BertConfig cannot see images of 32 pixels: "),
        ("hf:ViTMAEConfig", {}, "the features of hf:ViTMAEConfig depend on random numbers that it draws"),
        ("hf:ResNetConfig", {"drop_path": 0.1}, "backbone.drop_path: has no effect on hf:ResNetConfig"),
        ("hf:ViTConfig", {"width": 64}, "backbone.width: has no effect on hf:ViTConfig"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_what_cannot_serve_is_told_at_its_place(
    spec: Callable[..., Path], name: str, knobs: dict[str, Any], message: str
) -> None:
    path = spec(name, **knobs)
    with pytest.raises(SpecError) as caught:
        planned(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.usefixtures("lab")
def test_methods_of_tokens_and_of_stages_say_what_they_need(spec: Callable[..., Path]) -> None:
    with pytest.raises(SpecError, match=r"mae works on tokens, which my_lab\.models:small does not take"):
        planned(spec("my_lab.models:small", method="mae"))
    with pytest.raises(SpecError, match="has no feature map"):
        planned(spec("my_lab.models:vector", method="densecl"))
    with pytest.raises(SpecError, match=r"my_lab\.models:small has no feature maps of every stage"):
        planned(spec("my_lab.models:small", method="densecl"))


def test_without_transformers_it_is_asked_for(spec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(SpecError, match="hf:ViTConfig needs transformers, which is not installed"):
        read(spec("hf:ViTConfig"))


def test_a_module_that_draws_is_told(lab: Lab) -> None:
    lab(
        "drawing",
        "from torch import nn\n\n\ndef noisy():\n    return Noisy()\n\n\nclass Noisy(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(3, 4)\n\n    def forward(self, x):\n"
        "        return super().forward(x.mean(dim=(2, 3))) + x.new_empty(1).normal_()\n",
    )
    with pytest.raises(SpecError, match="depend on random numbers"):
        built("my_lab.drawing:noisy")
