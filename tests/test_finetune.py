"""Fine-tuning as an evaluation: what is planned for it, what its training is, and what its head names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plans import PLACE, Home

from selfsup import encoder, input_kinds, optim, tensors
from selfsup.contract import random_batch
from selfsup.errors import SpecError
from selfsup.evals.finetune import Finetune
from selfsup.evaluator import Features
from selfsup.method import TrainInfo, load
from selfsup.parts.patch import patchify
from selfsup.pipelines.cost import describe
from selfsup.pipelines.objective import METHOD, build
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.classify import HeadSource
from selfsup.sweeps.report.integrity import lacking
from selfsup.sweeps.result import Result
from selfsup.train import train
from selfsup.views import sized

SHORT = {"epochs": 2, "batch": 8, "warmup": 1}
INFO = TrainInfo(num_samples=64, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(32, 32))


def tuned(run: PlannedRun, name: str = "finetune") -> PlannedRun:
    return run.tuned[name]


def test_a_training_goes_on_from_the_encoder_of_each_run(home: Home) -> None:
    pixels, untrained, run = home.plan(evals__finetune=SHORT)
    kinds = [f"{stage.kind} {stage.name}".rstrip() for stage in run.stages]
    assert kinds == [
        "pretrain",
        "pictures",
        "pretrain finetune",
        "embed finetune",
        "embed",
        "finetune",
        "knn",
        "linear",
    ]
    assert (run.stages[2].space, run.stages[5].space) == ("pretrain/finetune", "eval/finetune")
    assert run.pretrain in run.stages[2].after
    assert run.owner(run.stages[2]) is tuned(run)
    assert tuned(run).start == run.pretrain.folder / "encoder.safetensors"
    assert (tuned(run).method, tuned(run).steps, tuned(run).run.train.batch) == ("supervised", 4, 8)
    assert tuned(untrained).start is None  # from scratch
    assert not pixels.tuned
    assert "finetune" not in [stage.kind for stage in pixels.stages]
    assert "after    finetune: 4 steps of 8" in describe([[run]])


def test_nothing_else_is_made_anew_for_it(home: Home) -> None:
    without, run = home.run(), home.run(evals__finetune=SHORT)
    assert {stage.key for stage in without.stages} < {stage.key for stage in run.stages}
    other = home.run(evals__finetune=SHORT | {"mixup": 0.0})
    changed = {stage.key for stage in run.stages} - {stage.key for stage in other.stages}
    assert {key.partition("-")[0] for key in changed} == {"pretrain", "embed", "finetune"}
    same = home.run(evals__finetune=SHORT, evals__again=SHORT | {"use": "finetune"})
    assert len(same.tunings) == 1  # of two names
    assert len(same.stages) == len(run.stages) + 1


def test_its_own_data_are_normalized_as_the_encoder_s_are(home: Home) -> None:
    data = {split: str(home.sets / "other" / "shards") for split in ("train", "val")}
    run = home.run(evals__finetune=SHORT | {"data": data})
    assert tuned(run).train.root == data["train"]
    assert tuned(run).stats == run.stats != tuned(run).train.fields["image"]
    assert tuned(run).pretrain.identity["normalized_by"] == run.train.digest
    assert "normalized_by" not in tuned(home.run(evals__finetune=SHORT)).pretrain.identity


def test_defaults_are_maes_of_a_base_vit(home: Home) -> None:
    run = tuned(home.run(evals__finetune={"batch": 16, "warmup": 1}, train__precision="bf16")).run
    optim, hyper = run.optim, run.hyper
    assert (optim.name, optim.lr, optim.lr_rule, optim.lr_batch) == ("adamw", 5e-4, "linear", 256)
    assert (optim.layer_decay, optim.weight_decay, optim.betas, optim.min_lr) == (0.65, 0.05, (0.9, 0.999), 1e-6)
    assert (hyper.mixup, hyper.cutmix, hyper.smoothing, hyper.head_std) == (0.8, 1.0, 0.1, 2e-5)
    assert (hyper.rand_augment, hyper.rand_augment_std, hyper.erasing, hyper.crop_min) == (9, 0.5, 0.25, 0.08)
    assert (run.backbone.drop_path, run.backbone.pool) == (0.1, "mean_norm")
    assert (run.train.duration.epochs, run.train.precision) == (100, "bf16")
    assert (Finetune.Hyper().batch, Finetune.Hyper().warmup) == (1024, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 32}, "1024 samples a step|32 samples a step, but .* holds 16"),
        ({"warmup": 5, "epochs": 2, "batch": 8}, "a warmup of 5 epochs is longer than the training of 2 epochs"),
        ({**SHORT, "batch": 12}, r"\.batch: a batch of 12"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(home: Home, settings, message: str) -> None:
    with pytest.raises(SpecError, match=PLACE + r"evals\.finetune.*" + message):
        home.run(evals__finetune=settings)


def test_the_head_sees_samples_as_evaluations_do(home: Home, tmp_path: Path) -> None:
    run = tuned(home.run(evals__finetune=SHORT), "finetune")
    object.__setattr__(run, "before", {})  # at initial weights
    method = build(run.run, run.size, torch.device("cpu")).eval()
    with torch.no_grad():
        for weight in method.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    tensors.save(method.state_dict(), tmp_path / METHOD)
    view = input_kinds.whole_of(run.run.kinds, run.run.backbone, 1.0)
    model = HeadSource(run.run, run.size, tmp_path / METHOD, view, run.stats).model()
    raw = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(moment).view(3, 1, 1) for moment in (run.stats.mean, run.stats.std))
    images = (raw.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        torch.testing.assert_close(model(raw), method.predict(patchify(images, 8)), rtol=1e-4, atol=1e-5)


def test_a_head_is_known_again_whatever_the_settings_of_its_run_are(home: Home, tmp_path: Path) -> None:
    """Tasks keep it loaded for their next block, by a hash, which mappings of a spec have not."""
    sections = {"evals__means": {"transfer": ["knn", "linear"]}, "resources": {"workers": {"min": 1, "max": 2}}}
    run = tuned(home.run(evals__finetune=SHORT, evals__knn={"k": 2}, evals__linear={}, **sections))
    view = input_kinds.whole_of(run.run.kinds, run.run.backbone, run.run.embed.crop)
    one, other = (HeadSource(run.run, run.size, tmp_path / METHOD, view, run.stats) for _ in range(2))
    assert hash(one) == hash(other)
    assert one == other != replace(one, weights=tmp_path / "other")


def test_the_largest_logit_names_the_class() -> None:
    empty = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    val = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    scores = dict(Finetune(Finetune.Hyper()).run(Features(*empty, val, np.array([0, 1, 2, 1]), 3), seed=0))
    assert scores["top1"].tolist() == [True, True, True, False]


def test_separable_classes_are_all_named_after_training(home: Home) -> None:
    """Images of one color each, by the published recipe but for its length and rate."""
    run = tuned(home.run(evals__finetune=SHORT | {"lr": 0.05, "drop_path": 0.0})).run
    torch.manual_seed(0)
    method = load("supervised")(run.hyper, {"image": encoder.build(run.backbone)}, INFO)
    label = torch.arange(16) % 3
    views = sized(method.views(run.hyper), 32)
    images = torch.eye(3)[label][:, :, None, None] + 0.1 * torch.randn(16, 3, 32, 32)
    blank = random_batch(views, 8, 16)
    view = blank.views[0]._replace(value=patchify(images, 8))
    batches = (blank._replace(views=(view,), label=label, draws=torch.rand(16, views.draws)) for _ in range(60))
    settings = {"optim": run.optim, "start": 0, "steps": 60, "warmup_steps": 5, "batch_size": 16, "seed": 0}
    list(train(method, method, optim.build(method, run.optim), batches, **settings))
    with torch.inference_mode():
        logits = method.eval().predict(patchify(images, 8)).numpy()
    empty = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    scores = dict(Finetune(Finetune.Hyper()).run(Features(*empty, logits, label.numpy(), 3), seed=0))
    assert scores["top1"].all()


def test_raw_samples_lack_no_number_that_only_an_encoder_has() -> None:
    tags = {"selfsup.method": "pixels"}
    raw = Result("id", 0, "run", "done", "", {"eval/knn/top1": 30.0}, {}, tags, {})
    metrics = ["eval/knn/top1", "eval/finetune/top1"]
    assert lacking(raw, metrics) == ""
    assert lacking(replace(raw, tags={}), metrics) == "done, without finetune top-1"
