"""Fine-tuning on maps: what is planned, steps against plain loops, and scores against other libraries."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from plans import PLACE, Home
from sklearn.metrics import accuracy_score, jaccard_score
from small import setting
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from selfsup import encoder, evaluator, optim, tensors
from selfsup.batch import Batch
from selfsup.contract import CONTRACTS, random_batch
from selfsup.errors import DataError, SpecError
from selfsup.evaluator import Features
from selfsup.method import Method, TrainInfo, load
from selfsup.parts.detector import Detector, unpacked
from selfsup.parts.objects import MOST, PACKED, objects_of
from selfsup.parts.patch import patchify
from selfsup.pipelines.cost import cost, describe
from selfsup.pipelines.data.annotated import AnnotatedSample, millimeters, pack_annotated, png
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.classify import HeadSource
from selfsup.pipelines.stages.encoder_source import Encode
from selfsup.pipelines.stages.evaluate import Load, features, source_of
from selfsup.pipelines.stages.maps import MapSource
from selfsup.sealed import sealed
from selfsup.train import train
from selfsup.views import sized

SHORT: dict[str, dict[str, Any]] = {
    "segment_finetune": {"classes": 4, "epochs": 2, "batch": 8, "warmup": 1},
    "depth_finetune": {"bins": 16, "epochs": 2, "batch": 8, "warmup": 1},
    "detection_finetune": {"classes": 4, "width": 16, "proposals": 8, "regions": 4}
    | {"epochs": 2, "batch": 8, "warmup": 1},
}
METHODS = {
    "segment_finetune": "dense.segmenter",
    "depth_finetune": "dense.depth_estimator",
    "detection_finetune": "dense.object_detector",
}
STEPS, RISE = 10, 3
INFO = TrainInfo(num_samples=64, num_classes=3, num_steps=STEPS, steps_per_epoch=2, sizes=(32, 32))
every = pytest.mark.parametrize("name", SHORT)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder of 16 images with maps of four classes, objects and depth."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("maps")
    samples = (
        AnnotatedSample(
            f"{number}",
            {
                "jpg": jpeg(draw.integers(0, 256, (32, 40, 3), dtype=np.uint8), quality=90),
                "seg.png": png(draw.integers(0, 4, (32, 40)).astype(np.uint8)),
                "inst.png": png(np.kron(draw.integers(0, 3, (4, 5)), np.ones((8, 8))).astype(np.uint8)),
                "depth.png": png(millimeters(draw.uniform(1, 9, (32, 40)))),
            },
            number % 2,
        )
        for number in range(16)
    )
    pack_annotated(samples, folder, shard_size=8)
    return str(folder)


def planned(home: Home, maps: str, name: str, **knobs: Any) -> PlannedRun:
    return home.run(**{f"evals__{name}": SHORT[name] | knobs}, data={"train": maps, "val": maps})


@pytest.fixture
def runs(home: Home, maps: str) -> tuple[PlannedRun, ...]:
    """Return pixels, the untrained encoder and a run with all three."""
    evals = {f"evals__{name}": knobs for name, knobs in SHORT.items()}
    return home.plan(**evals, data={"train": maps, "val": maps})


def test_they_are_trained_on_every_image_that_has_maps(runs: tuple[PlannedRun, ...]) -> None:
    pixels, untrained, run = runs
    text = describe([[run]])
    assert not pixels.tuned
    for name, tuned in run.tuned.items():
        assert (tuned.method, tuned.steps, tuned.train.num_samples) == (METHODS[name], 4, 16)
        assert tuned.start == run.pretrain.folder / "encoder.safetensors"
        assert untrained.tuned[name].start is None
        assert run.embeds[name].identity["squashed"]
        assert f"after    {name}: 4 steps of 8" in text
        price = cost(tuned.run, tuned.info)
        assert price.parameters > price.encoder_parameters
        assert price.activation_bytes > 0
    assert list(run.tuned) == sorted(SHORT)


def test_defaults_are_the_published_ones(runs: tuple[PlannedRun, ...]) -> None:
    knobs = [evaluator.load(name).Hyper() for name in SHORT]
    assert [(own.batch, own.warmup) for own in knobs] == [(16, 1500), (128, 100), (64, 250)]
    assert round(20_210 * knobs[0].epochs / 16, -4) == 160_000  # of ADE20K
    assert [own.epochs for own in knobs[1:]] == [2000, 100]
    segment, depth, detection = (runs[-1].tuned[name].run for name in SHORT)
    for run, decay, layer, drop in ((segment, 0.05, 0.65, 0.1), (depth, 1e-4, 0.75, 0.0), (detection, 0.1, 0.7, 0.1)):
        own = run.optim
        assert (own.name, own.lr, own.lr_rule, own.betas) == ("adamw", 1e-4, "none", (0.9, 0.999))
        assert (own.weight_decay, own.layer_decay, run.backbone.drop_path) == (decay, layer, drop)
    assert (detection.optim.drops, detection.optim.drop_factor) == ((8 / 9, 26 / 27), 0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 32}, "batch: 32 samples a step, but .* holds 16"),
        ({"warmup": 9}, "warmup: 9 steps of warm-up are longer than the training, 4"),
    ],
)
def test_what_cannot_be_trained_is_refused(home: Home, maps: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=PLACE + r"evals\.segment_finetune\." + message):
        planned(home, maps, "segment_finetune", **settings)


def test_data_without_maps_is_refused(home: Home) -> None:
    with pytest.raises(SpecError, match=r"segment_finetune needs \.seg\.png beside each image, and data\.train"):
        home.run(evals__segment_finetune=SHORT["segment_finetune"])


@pytest.mark.parametrize("title", CONTRACTS)
@every
def test_its_training_keeps_the_contracts_of_objectives(name: str, title: str) -> None:
    assert CONTRACTS[title](lambda seed: setting(METHODS[name], "vit", seed=seed)) == ""


@every
def test_it_trains_every_weight_of_a_cnn_too(name: str) -> None:
    title = "a finite gradient reaches every trained weight"
    assert CONTRACTS[title](lambda seed: setting(METHODS[name], "cnn", seed=seed)) == ""


def drawn(run: PlannedRun) -> tuple[Method, list[Batch]]:
    """The method at its initial weights, and ten batches of four."""
    torch.manual_seed(0)
    method = load(run.method)(run.run.hyper, {"image": encoder.build(run.run.backbone)}, INFO)
    views = sized(method.views(run.run.hyper), 32)
    return method, [random_batch(views, 8, 4) for _ in range(STEPS)]


def grouped(method: Method, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """The weights of timm's ViT, each with the rate of its layer, and of the head."""
    trunk, groups = method.backbone.trunk, []
    for name, weight in method.named_parameters():
        own = name.removeprefix("encoders.image.trunk.")
        layer = len(trunk.blocks) + 1
        if own.startswith("blocks."):
            layer = int(own.split(".")[1]) + 1
        elif own != name and "norm" not in own:
            layer = 0
        scale = layer_decay ** (len(trunk.blocks) + 1 - layer)
        decay = weight_decay * (weight.ndim > 1 and own != "cls_token")
        groups.append({"params": [weight], "scale": scale, "weight_decay": decay})
    return [group for group in groups if group["params"][0].requires_grad]


def rate(step: int) -> float:
    if step < RISE:
        return (step + 1) / RISE
    return 0.5 + 0.5 * math.cos(math.pi * (step - RISE) / (STEPS - RISE))


def dropped(step: int) -> float:
    return min(1.0, (step + 1) / RISE) * 0.1 ** sum(step >= share * STEPS for share in (8 / 9, 26 / 27))


def classes(method: Method, grid: Tensor, batch: Batch) -> Tensor:
    coarse = F.conv2d(grid, method.head.weight[..., None, None], method.head.bias)
    logits = F.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, batch.maps[0], ignore_index=-1)


def depths(method: Method, grid: Tensor, batch: Batch) -> Tensor:
    share = F.relu(torch.einsum("bdhw,kd->bkhw", grid, method.head.weight) + method.head.bias[:, None, None]) + 0.1
    meters = torch.einsum("bkhw,k->bhw", share / share.sum(1, keepdim=True), torch.linspace(0.001, 10, 16))
    guess = F.interpolate(meters[:, None], scale_factor=8, mode="bilinear")[:, 0]
    box = batch.views[0].box  # of 20 by 20 pixels, of 30 by 40
    assert (box[:, 2:4] == 20).all()
    true = batch.maps[0] / math.sqrt(30 * 40 / 20**2)
    known = true > 0.001
    difference = torch.log(guess[known] + 0.001) - torch.log(true[known] + 0.001)
    return torch.sqrt(difference.var() + 0.15 * difference.mean() ** 2)


def regions(method: Method, grid: Tensor, batch: Batch) -> Tensor:
    """The detector's own losses of each image, which test_detector holds, in the mean."""
    losses = []
    for image, seg, inst, draws in zip(grid, *batch.maps, batch.draws, strict=True):
        high, low = (int(2**16 * draw) for draw in draws)
        torch.manual_seed(2**16 * high + low)
        tokens = image.flatten(1).T[None]
        losses.append(method.detector.loss(tokens, [objects_of(np.stack([seg.numpy(), inst.numpy()]))]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("name", "loss", "pace"),
    [
        ("segment_finetune", classes, rate),
        ("depth_finetune", depths, rate),
        ("detection_finetune", regions, dropped),
    ],
)
def test_ten_steps_are_those_of_a_plain_loop(
    home: Home, maps: str, name: str, loss: Callable[..., Tensor], pace: Callable[[int], float]
) -> None:
    """The loop trains timm's ViT with a head on its tokens, by torch's AdamW and formulas of the schedules."""
    run = planned(home, maps, name, drop_path=0.0).tuned[name]
    settings = run.run.optim
    method, batches = drawn(run)
    given = {"optim": settings, "start": 0, "steps": STEPS, "warmup_steps": RISE, "batch_size": 8, "seed": 0}
    ours = [float(step.log["loss"]) for step in train(method, method, optim.build(method, settings), batches, **given)]
    other, batches = drawn(run)
    groups = grouped(other, settings.layer_decay, settings.weight_decay)
    optimizer, theirs = torch.optim.AdamW(groups, betas=(0.9, 0.999)), list[float]()
    for step, batch in enumerate(batches):
        pixels = batch.views[0].value.value.unflatten(2, (64, 3)).transpose(2, 3).flatten(2)  # channels first
        tokens = other.backbone.trunk.forward_features(F.fold(pixels.mT, 32, 8, stride=8))[:, 1:]
        value = loss(other, tokens.mT.reshape(4, -1, 4, 4), batch)
        optimizer.zero_grad()
        value.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * pace(step) * group["scale"]
        optimizer.step()
        theirs.append(float(value.detach()))
    assert ours == pytest.approx(theirs, rel=1e-5)
    for (title, weight), expected in zip(method.named_parameters(), other.parameters(), strict=True):
        if not title.endswith("qkv.bias"):  # where keys have no gradient, AdamW follows rounding
            torch.testing.assert_close(weight, expected, rtol=1e-3, atol=2e-6, msg=title)


def test_pixels_have_the_largest_of_the_interpolated_logits() -> None:
    method, batch = setting("dense.segmenter", "vit")
    view = batch.views[0].value
    with torch.no_grad():
        method.head.weight.mul_(20)
        guess = method.predict(view)
        coarse = torch.einsum("bdhw,cd->bchw", method.backbone.spatial(view), method.head.weight)
        logits = F.interpolate(coarse + method.head.bias[:, None, None], (16, 16), mode="bilinear")
    assert guess.shape == (8, 16 * 16, 1)
    assert guess[..., 0].equal(logits.argmax(1).flatten(1))
    assert len(guess.unique()) > 5


UPERNET: dict[str, Any] = {"decoder": "upernet", "width": 16}


@pytest.mark.parametrize("title", CONTRACTS)
def test_upernet_keeps_the_contracts_of_objectives(title: str) -> None:
    assert CONTRACTS[title](lambda seed: setting("dense.segmenter", "vit", seed=seed, **UPERNET)) == ""


def test_upernet_learns_by_both_heads_and_predicts_by_the_first() -> None:
    """The second has 0.4 of the first's weight. Maps are of timm's blocks 1, 1, 2 and 2 of two, after its norm."""
    method, batch = setting("dense.segmenter", "vit", **UPERNET)
    method.eval()
    view, trunk = batch.views[0].value, method.backbone.trunk
    with torch.no_grad():
        images = F.fold(view.value.unflatten(2, (16, 3)).transpose(2, 3).flatten(2).mT, 16, 4, stride=4)
        maps = trunk.forward_intermediates(images, indices=[0, 1], norm=True, intermediates_only=True)
        torch.testing.assert_close(maps[1], method.backbone.spatial(view))
        heads = method.upernet([maps[0], maps[0], maps[1], maps[1]])
        logits = [F.interpolate(own, (16, 16), mode="bilinear") for own in heads]
        losses = [F.cross_entropy(own, batch.maps[0], ignore_index=-1) for own in logits]
        torch.testing.assert_close(method(batch).loss, losses[0] + 0.4 * losses[1])
        assert method.predict(view)[..., 0].equal(logits[0].argmax(1).flatten(1))


def test_upernet_needs_a_plain_vit(home: Home, maps: str) -> None:
    cnn = {"name": "resnet18", "image_size": 32, "width": 16}
    knobs = SHORT["segment_finetune"] | UPERNET
    with pytest.raises(SpecError, match=r"evals\.segment_finetune\.decoder: UPerNet reads blocks of a plain ViT"):
        home.run(method="simclr", backbone=cnn, evals__segment_finetune=knobs, data={"train": maps, "val": maps})


def test_only_the_encoder_of_a_detector_is_in_bf16() -> None:
    method, batch = setting("dense.object_detector", "vit")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, grid = method(batch).loss, method.backbone.spatial(batch.views[0].value)
    assert loss.equal(regions(method, grid.float(), batch))


def test_what_is_packed_of_detections_is_what_the_detector_guesses() -> None:
    torch.manual_seed(0)
    detector, tokens = (
        Detector(6, 3, width=16, anchors=(0.5, 1, 2, 3, 4), proposals=20, regions=8),
        torch.randn(2, 16, 6),
    )

    with torch.inference_mode():
        rows = detector.packed(tokens, 32)
    assert rows.shape == (2, MOST, PACKED)
    for own, expected in zip(rows, detector.guesses(tokens, 32), strict=True):
        assert len(expected.scores) > 3
        for value, other in zip(unpacked(own, 32), expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-5)


@every
def test_predictions_come_with_the_maps_of_their_images(home: Home, maps: str, name: str, tmp_path: Path) -> None:
    """Whole images are squashed to 32 pixels a side, as torchvision squashes them."""
    run = planned(home, maps, name)
    tuned, evaluation = run.tuned[name], run.evals[name]
    object.__setattr__(tuned, "before", {})  # at initial weights
    method = build(tuned.run, tuned.size, torch.device("cpu")).eval()
    tensors.save(method.state_dict(), tmp_path / METHOD)
    source, splits = source_of(tuned, None, run.feature(evaluation)), run.splits(name)
    head = HeadSource(tuned.run, tuned.size, tmp_path / METHOD, source.view, source.stats)
    with sealed(tmp_path / "features") as part:
        pq.write_table(Encode(head)(Load(*splits, source.view, 16)({"id": np.arange(16)})), part / "a")
    target = evaluation.evaluator.target
    data = features(tmp_path, 2, labelled=False, maps=MapSource(target, splits, 32, shared=False))
    shown = (16, 2, 32, 32) if target == "objects" else (16, 32, 32)
    assert (data.train.shape[0], data.val_map.shape) == (0, shown)
    [sample] = SampleReader(splits.val, "image").read(np.array([5]))
    pixels = torch.tensor(np.array(Image.open(io.BytesIO(sample.data)))).permute(2, 0, 1)
    image = TF.resize(pixels, [32, 32], TF.InterpolationMode.BICUBIC)
    mean, std = (torch.tensor(moment).view(3, 1, 1) for moment in (tuned.stats.mean, tuned.stats.std))
    with torch.inference_mode():
        expected = method.predict(patchify((image[None] / 255 - mean) / std, 8))[0].numpy()
    assert (abs(data.val[5] - expected) < 0.05).mean() > 0.97  # decoders of JPEGs round apart
    scores = dict(evaluation.evaluator(evaluation.hyper).run(data, seed=0))
    assert scores.keys() == evaluation.evaluator.metrics.keys()


def score(name: str, guess: NDArray[Any], true: NDArray[Any], **knobs: Any) -> dict[str, Any]:
    none, protocol = np.full(len(true), -1), evaluator.load(name)
    empty = np.empty((0, *guess.shape[1:]), np.float32), none[:0]
    features = Features(*empty, guess.astype(np.float32), none, 6, true[:0], true)
    return dict(protocol(protocol.Hyper(**knobs)).run(features, seed=0))


def test_classes_are_scored_as_by_scikit_learn_over_all_pixels() -> None:
    draw = np.random.default_rng(0)
    true, guess = draw.integers(-1, 4, (6, 2, 2)), draw.integers(0, 6, (6, 2, 2))
    scores, known = score("segment_finetune", guess.reshape(6, 4, 1), true), true >= 0
    assert scores["miou"] == pytest.approx(100 * jaccard_score(true[known], guess[known], average="macro"))
    assert scores["pixels"] == pytest.approx(100 * accuracy_score(true[known], guess[known]))
    with pytest.raises(DataError, match="no pixel of val has a class"):
        score("segment_finetune", guess.reshape(6, 4, 1), true * 0 - 1)


def test_depths_are_scored_image_by_image() -> None:
    true = np.array([[[1.0, 2.0], [0.0, 12.0]], [[4.0, 4.0], [4.0, 4.0]]])
    guess = np.array([[[1.5, 2.0], [3.0, 3.0]], [[5.0, 5.0], [4.0, 4.0]]])
    scores = score("depth_finetune", guess.reshape(2, 4, 1), true)
    assert scores["rmse"] == pytest.approx((math.sqrt(0.125) + math.sqrt(0.5)) / 2)
    assert scores["abs_rel"] == pytest.approx((0.25 + 0.125) / 2)
    assert scores["delta1"] == pytest.approx(100 * (1 / 2 + 1 / 2) / 2)  # 1.25 is not within 1.25
    with pytest.raises(DataError, match="no pixel of val has a depth below 1 m; set a larger most"):
        score("depth_finetune", guess.reshape(2, 4, 1), true, most=1.0)


def test_objects_that_are_found_have_all_of_their_precision() -> None:
    """Boxes and full masks of two objects an image; then one of them of the other class."""
    seg, inst = np.zeros((3, 8, 8), int), np.zeros((3, 8, 8), int)
    seg[:, :, 4:], inst[:, 2:6, :3], inst[:, 1:7, 5:] = 1, 1, 2
    packed = np.full((3, MOST, PACKED), -1.0)
    packed[:, :2, :6] = [[0, 2, 3, 6, 0, 0.9], [5, 1, 8, 7, 1, 0.8]]
    packed[:, :2, 6:] = 1.0
    true = np.stack([seg, inst], axis=1)
    assert score("detection_finetune", packed, true) == {"ap": 100, "ap50": 100, "mask_ap": 100, "mask_ap50": 100}
    packed[:, 1, 4] = 0
    assert score("detection_finetune", packed, true)["ap"] == pytest.approx(50)
    with pytest.raises(DataError, match="no image of val shows an object that has a class"):
        score("detection_finetune", packed, true * 0)
