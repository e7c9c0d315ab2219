"""Fine-tuning on maps of classes: what is planned, its steps against a plain loop, and what is scored."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plans import PLACE, Home
from sklearn.metrics import accuracy_score, jaccard_score
from torch import nn

from selfsup import encoder, optim
from selfsup.batch import Batch
from selfsup.contract import BACKBONES, CONTRACTS, example, random_batch
from selfsup.errors import DataError, SpecError
from selfsup.evals.segment_finetune import SegmentFinetune
from selfsup.evaluator import Features
from selfsup.method import Method, TrainInfo, load
from selfsup.pipelines.cost import describe
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.spec import Run
from selfsup.train import train
from selfsup.views import sized

SHORT = {"classes": 4, "epochs": 2, "batch": 8, "warmup": 1}
EMPTY = np.empty((0, 4, 1), np.float32), np.empty(0, np.int64)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of 16 images with maps of four classes."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("maps")
    samples = (
        AnnotatedSample(
            f"{number}",
            {
                "jpg": jpeg(draw.integers(0, 256, (32, 40, 3), dtype=np.uint8), quality=90),
                "seg.png": png(draw.integers(0, 4, (32, 40)).astype(np.uint8)),
            },
            number % 2,
        )
        for number in range(16)
    )
    pack_annotated(samples, folder, shard_size=8)
    return str(folder)


def test_it_is_trained_on_every_image_with_maps_as_maes_base_vit_is(home: Home, maps: str) -> None:
    _, untrained, run = home.plan(evals__segment_finetune=SHORT, data={"train": maps, "val": maps})
    tuned = run.tuned["segment_finetune"]
    assert (tuned.method, tuned.steps, tuned.train.num_samples) == ("dense.segmenter", 4, 16)
    assert tuned.start == run.pretrain.folder / "encoder.safetensors"
    assert untrained.tuned["segment_finetune"].start is None
    assert run.embeds["segment_finetune"].identity["squashed"]
    assert "after    segment_finetune: 4 steps of 8" in describe([[run]])
    published, rates = SegmentFinetune.Hyper(), tuned.run.optim
    assert round(20_210 * published.epochs / published.batch, -4) == 160_000
    assert (rates.name, rates.lr, rates.lr_rule, rates.weight_decay) == ("adamw", 1e-4, "none", 0.05)
    assert (rates.layer_decay, rates.betas, tuned.run.backbone.drop_path) == (0.65, (0.9, 0.999), 0.1)
    assert (published.warmup, published.classes) == (1500, 150)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SHORT, "batch": 32}, "batch: 32 samples a step, but .* holds 16"),
        ({**SHORT, "warmup": 9}, "warmup: 9 steps of warm-up are longer than the training, 4"),
    ],
)
def test_what_cannot_be_trained_is_refused(home: Home, maps: str, settings, message: str) -> None:
    with pytest.raises(SpecError, match=PLACE + r"evals\.segment_finetune\." + message):
        home.run(evals__segment_finetune=settings, data={"train": maps, "val": maps})


def test_data_without_maps_is_refused(home: Home) -> None:
    with pytest.raises(SpecError, match=r"segment_finetune needs \.seg\.png beside each image, and data\.train"):
        home.run(evals__segment_finetune=SHORT)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("title", CONTRACTS)
def test_it_keeps_the_contracts_of_objectives(title: str, kind: str) -> None:
    assert CONTRACTS[title](lambda seed: example(load("dense.segmenter"), BACKBONES[kind], seed)) == ""


STEPS, RISE = 10, 3
INFO = TrainInfo(num_samples=64, num_classes=3, num_steps=STEPS, steps_per_epoch=2, sizes=(32, 32))


def drawn(settings: Run) -> tuple[Method, list[Batch]]:
    """The method at its initial weights, and ten batches."""
    torch.manual_seed(0)
    method = load("dense.segmenter")(settings.hyper, {"image": encoder.build(settings.backbone)}, INFO)
    views = sized(method.views(settings.hyper), 32)
    return method, [random_batch(views, 8, 8) for _ in range(STEPS)]


def grouped(trunk: nn.Module, head: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The weights of timm's ViT, each with the rate of its layer, and of a head."""
    depth, groups = len(trunk.blocks), []
    for name, weight in trunk.named_parameters():
        layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0 if "norm" not in name else depth + 1
        decays = weight.ndim > 1 and name != "cls_token"
        groups.append({"params": [weight], "scale": decay ** (depth + 1 - layer), "weight_decay": 0.05 * decays})
    weights = [
        {"params": [weight], "scale": 1.0, "weight_decay": 0.05 * (weight.ndim > 1)} for weight in head.parameters()
    ]
    return [group for group in groups if group["params"][0].requires_grad] + weights


def rate(step: int) -> float:
    if step < RISE:
        return (step + 1) / RISE
    return 0.5 + 0.5 * math.cos(math.pi * (step - RISE) / (STEPS - RISE))


def test_ten_steps_are_those_of_a_plain_loop(home: Home, maps: str) -> None:
    """Of timm's ViT with a convolution on its tokens, by torch's AdamW and formulas of the schedules."""
    run = home.run(evals__segment_finetune=SHORT | {"drop_path": 0.0}, data={"train": maps, "val": maps})
    settings = run.tuned["segment_finetune"].run
    method, batches = drawn(settings)
    given = {"optim": settings.optim, "start": 0, "steps": STEPS, "warmup_steps": RISE, "batch_size": 8, "seed": 0}
    steps = train(method, method, optim.build(method, settings.optim), batches, **given)
    ours = [float(step.log["loss"]) for step in steps]
    other, batches = drawn(settings)
    trunk, theirs = other.backbone.trunk, list[float]()
    optimizer = torch.optim.AdamW(grouped(trunk, other.head, 0.65), betas=(0.9, 0.999))
    for step, batch in enumerate(batches):
        pixels = batch.views[0].value.value.unflatten(2, (64, 3)).transpose(2, 3).flatten(2)  # channels first
        grid = trunk.forward_features(F.fold(pixels.mT, 32, 8, stride=8))[:, 1:].mT.reshape(8, -1, 4, 4)
        logits = F.interpolate(other.head(grid), scale_factor=8, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, batch.maps[0], ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * rate(step) * group["scale"]
        optimizer.step()
        theirs.append(float(loss.detach()))
    assert ours == pytest.approx(theirs, rel=1e-5)
    for (name, weight), expected in zip(method.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_pixels_have_the_largest_of_the_interpolated_logits() -> None:
    method, batch = example(load("dense.segmenter"), BACKBONES["vit"], 0)
    view = batch.views[0].value
    with torch.no_grad():
        method.head.weight.mul_(20)
        guess = method.predict(view)
        logits = F.interpolate(method.head(method.backbone.spatial(view)), (32, 32), mode="bilinear")
    assert guess.shape == (8, 32 * 32, 1)
    assert guess[..., 0].equal(logits.argmax(1).flatten(1))
    assert len(guess.unique()) > 5


def test_scores_are_scikit_learns_over_all_pixels() -> None:
    draw = np.random.default_rng(0)
    true, guess = draw.integers(-1, 4, (6, 2, 2)), draw.integers(0, 6, (6, 2, 2))
    none = np.full(6, -1)
    features = Features(*EMPTY, guess.reshape(6, 4, 1).astype(np.float32), none, 4, true[:0], true)
    scores = dict(SegmentFinetune(SegmentFinetune.Hyper(classes=5)).run(features._replace(classes=6), seed=0))
    known = true >= 0
    assert scores["miou"] == pytest.approx(100 * jaccard_score(true[known], guess[known], average="macro"))
    assert scores["pixels"] == pytest.approx(100 * accuracy_score(true[known], guess[known]))
    with pytest.raises(DataError, match="no pixel of val has a class"):
        dict(SegmentFinetune(SegmentFinetune.Hyper()).run(features._replace(val_map=true * 0 - 1), seed=0))
