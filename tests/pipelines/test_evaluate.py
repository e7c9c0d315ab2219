"""Evaluations on data of their own and of tokens, on a real Ray, with an encoder at its initial weights."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import BACKBONE, write_encoder

import selfsup.evals
from selfsup import evaluations, hits, spec
from selfsup.encoder import build
from selfsup.evaluator import load
from selfsup.metrics_log import records
from selfsup.parts.patch import patchify
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.pixels.augment import normalize
from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages import curves, evaluate, views
from selfsup.pipelines.stages.paint import Pixels, paintings, shares
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Backbone, Paint
from selfsup.views import Center

pytestmark = pytest.mark.usefixtures("cluster")
SPREAD = '''
"""The spread of tokens about the mean of their image: label-free, and less is better."""
from selfsup.bounded import at_once
from selfsup.evaluator import Evaluator, Metric
from selfsup.knob import Knobs
from selfsup.parts.dist import world_size

class Spread(Evaluator):
    """The deviation of tokens."""
    reads, target = "tokens", None
    metrics = {"deviation": Metric(unit="", better="min"), "room": Metric(unit="", better=None, headline=False)}
    metrics |= {"workers": metrics["room"]}
    class Hyper(Knobs):
        """No knobs."""
    def __init__(self, hyper): pass
    def run(self, features, *, seed, device="cpu"):
        yield "deviation", float(features.val.std(1).mean())
        yield "room", at_once(2**20, 4)
        yield "workers", world_size()
'''


def normalized(images: torch.Tensor, manifest: Manifest) -> torch.Tensor:
    stats = manifest.fields["image"]
    return normalize(images, mean=stats.mean, std=stats.std)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Path:
    """bare: 9 images without labels. flowers, flowers_val: 12 and 6 with labels."""
    root = tmp_path_factory.mktemp("sets")
    for seed, (name, number) in enumerate({"flowers": 12, "flowers_val": 6, "own": 18}.items()):
        make(root / name, number=number, seed=seed)
    pack(root / "own" / "images" / "a", root / "bare" / "shards")
    return root


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in `evals/`."""
    caches = evaluations.section, evaluations.kind, spec.run_type, spec.spec_type
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "spread.py").write_text(SPREAD)
    monkeypatch.setattr(selfsup.evals, "__path__", [*selfsup.evals.__path__, str(tmp_path / "evals")])
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def planned(home: Path, sets: Path, data: dict[str, str], evals: dict[str, Any], **more: Any) -> PlannedRun:
    named = {use: str(sets / name / "shards") for use, name in data.items()}
    told = {"name": "tiny", "method": "untrained", "backbone": BACKBONE, "baselines": False, "data": named}
    told |= {"train": {"duration": {"steps": 1}, "batch": 4}, "stream": {"lanes": 4}, "evals": evals, **more}
    home.mkdir(exist_ok=True)
    (home / "spec.yaml").write_text(yaml.safe_dump(told))
    return plan(spec.read(home / "spec.yaml"), home)[-1]


def test_an_encoder_of_unlabelled_images_is_scored_on_labelled_ones(tmp_path: Path, sets: Path) -> None:
    flowers = {name: str(sets / folder / "shards") for name, folder in (("train", "flowers"), ("val", "flowers_val"))}
    evals = {
        "flowers": {"use": "linear", "epochs": 2, "data": flowers},
        "near": {"use": "knn", "k": 3, "data": flowers},
    }
    run = planned(tmp_path, sets, {"train": "bare"}, evals)
    perform(run)
    assert run.done
    assert run.embeds["flowers"].result() == {"samples": 18.0, "undecodable": 0.0}
    features = evaluate.features(run.embeds["near"].folder, 2)
    assert [part.shape for part in features[:4]] == [(12, 32), (12,), (6, 32), (6,)]
    assert features.val_label.tolist() == [0, 0, 0, 1, 1, 1]
    for name, stage in run.probes.items():
        evaluation = run.evals[name]
        scores = dict(load(evaluation.use)(evaluation.hyper).run(features, seed=0))
        assert stage.result()["top1"] == pytest.approx(100 * np.mean(scores["top1"]))
        seen = hits.read((stage.folder / hits.NAME).read_bytes())
        assert seen
        np.testing.assert_array_equal(seen.right["top1"], scores["top1"])
    _check_normalized_by_its_own_pre_training(run, features.val)


def test_further_test_sets_take_the_features_of_the_train_that_they_share(
    tmp_path: Path, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load is told the number of the first sample: of the second stage the first of val, 12, train being embedded."""
    firsts, plain = [], evaluate.Load

    def noted(*given: Any) -> evaluate.Load:
        firsts.append(given[3])
        return plain(*given)

    monkeypatch.setattr(evaluate, "Load", noted)
    shift = {"use": "knn", "k": 3, "data": {"val": str(sets / "own" / "shards")}}
    data = {"train": "flowers", "val": "flowers_val"}
    run = planned(tmp_path, sets, data, {"knn": {"k": 3}, "shift": shift})
    perform(run)
    assert firsts == [0, 12]
    alone = planned(tmp_path / "alone", sets, data, {"shift": shift})
    perform(alone)
    assert alone.embeds["shift"].key == run.embeds["shift"].key
    assert alone.embeds["shift"].result() == run.embeds["shift"].result() == {"samples": 30.0, "undecodable": 0.0}
    first, second = (evaluate.features(one.embeds["shift"].folder, 2) for one in (run, alone))
    for part, expected in zip(first[:4], second[:4], strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-6)
    assert alone.probes["shift"].result() == run.probes["shift"].result()


def _check_normalized_by_its_own_pre_training(run: PlannedRun, made: np.ndarray) -> None:
    """Channels have the mean of the images that the encoder learns on, not of those that it is scored on."""
    flowers = run.splits("flowers")
    load_images = evaluate.Load(*flowers, Center(size=32, share=run.run.embed.crop))
    images = torch.tensor(load_images({"id": np.arange(12, 18)})["sample"]).permute(0, 3, 1, 2) / 255
    torch.manual_seed(run.run.seed)
    encoder = build(run.run.backbone).eval()
    assert run.train.fields["image"].mean != flowers.train.fields["image"].mean
    with torch.inference_mode():
        view = normalized(images, run.train)
        np.testing.assert_allclose(made, encoder.pooled(patchify(view, 8)).numpy(), atol=1e-5)


def test_images_are_painted_from_features_alike_each_time(tmp_path: Path, sets: Path) -> None:
    paint = {"steps": 3, "size": 8, "width": 16}
    run = planned(tmp_path, sets, {"train": "flowers", "val": "flowers_val"}, {}, paint=paint)
    perform(run)
    features, painted = run.stages
    assert features.result()["samples"] == 18
    assert painted.result()["images"] == 6
    assert painted.result()["explained"] < 100
    [picture] = painted.artifacts()
    with Image.open(picture) as sheet:
        assert sheet.size == (6 * 132 + 4, 5 * 132 + 4)  # originals, and four samples of each
        rows = np.asarray(sheet.convert("RGB"))
    first = _painter(run)[0].read(np.array([12]))[0]
    shown = ((first + 1) * 127.5).permute(1, 2, 0)
    np.testing.assert_allclose(rows[4:132:16, 4:132:16], shown, atol=1)
    again, value = (paintings(features.folder, *_painter(run)) for _ in range(2))
    np.testing.assert_array_equal(again[1], value[1])
    assert shares(*value) == pytest.approx({name: painted.result()[name] for name in ("explained", "shared")}, rel=1e-3)


def _painter(run: PlannedRun) -> tuple[Pixels, Paint, int]:
    assert run.run.paint
    return Pixels(*run.splits(""), Center(size=8, share=run.run.embed.crop)), run.run.paint, run.run.seed


@pytest.mark.usefixtures("spread")
def test_tokens_of_all_samples_for_an_evaluation_without_labels_in_the_room_that_a_spec_gives(
    tmp_path: Path, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(tmp_path, sets, {"train": "bare", "val": "bare"}, {"spread": {}}, resources={"eval_memory": 64})
    assert [stage.space for stage in run.stages] == ["embed/spread", "eval/spread"]
    stage = run.embeds["spread"]
    stage.claim()
    stage.finish(evaluate.embed(run, stage))
    load_images = evaluate.Load(run.train, run.train, Center(size=32, share=run.run.embed.crop))
    images = torch.tensor(load_images({"id": np.arange(9)})["sample"]).permute(0, 3, 1, 2) / 255
    torch.manual_seed(run.run.seed)
    encoder = build(run.run.backbone).eval()
    with torch.inference_mode():
        tokens = encoder(patchify(normalized(images, run.train), 8))[:, 1:].numpy()
    features = evaluate.features(stage.folder, 0, labelled=False)
    np.testing.assert_allclose(features.val, tokens, atol=1e-5)  # (9, 16, 32)
    monkeypatch.setattr(evaluate, "called", lambda function, *args, **_: function(*args))  # where the file is known
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda _=None: 2)  # of whom the other has no part in it
    scores, label = evaluate.scored(run, run.evals["spread"], stage.folder, None, cpus=1, gpus=0)
    deviation = pytest.approx(tokens.std(1).mean(), rel=1e-5)
    assert scores == {"deviation": deviation, "room": 2**20 / 4 * 64 / 256, "workers": 1}
    assert label.tolist() == [-1] * 9


def test_during_training_features_and_scores_are_the_same_by_any_number_of_tasks(
    tmp_path: Path, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that are made once training is over: of samples, and of views of some of them."""
    weights, made = write_encoder(Backbone(**BACKBONE), tmp_path), []

    def scored(run: PlannedRun, evaluation: Any, folder: Path, *args: Any, **needs: Any) -> Any:
        table, value = evaluate.read_features(folder)
        made.append((table["id"].to_pylist(), value))
        return evaluate.scored(run, evaluation, folder, *args, **needs)

    monkeypatch.setattr(curves, "scored", scored)
    data, evals = {"train": "flowers", "val": "flowers_val"}, {"linear": {"epochs": 2}}
    evals |= {"invariance": {"views": 3, "images": 5}}
    curve = []
    for tasks in (1, 3):
        (home := tmp_path / f"{tasks}").mkdir()
        monkeypatch.setattr(curves, "_free_cpus", lambda _, tasks=tasks: tasks)
        run = planned(home, sets, data, evals, method="mae", embed={"batch": 2})
        curves.evaluate(run, 1, weights)
        logs = {name: [*records(probe.spool)] for name, probe in run.probes.items()}
        curve.append({name: [(record.step, record.values) for record in log] for name, log in logs.items()})
    ids, value = made[0]
    assert ids == list(range(18))
    for again, same in made[1:]:
        assert ids == again
        np.testing.assert_array_equal(value, same)
    assert curve[0] == curve[1]
    assert run.pretrain
    for stage in (run.pretrain, run.embeds["invariance"], run.views["invariance"]):
        stage.claim()
    (run.pretrain.folder / ENCODER).write_bytes(weights.read_bytes())
    evaluate.embed(run, run.embeds["invariance"])
    views.views(run, run.views["invariance"])
    for name, own in curve[1].items():
        final = evaluate.probe(run, run.probes[name])
        assert own == [(1, {key: pytest.approx(value) for key, value in final.items() if key != "images"})]
