"""Semi-supervised fine-tuning: which samples are its own, and what its training is."""

import pickle

import numpy as np
import pytest
from plans import PLACE, Home

from selfsup.errors import SpecError
from selfsup.evals.lowshot import draw
from selfsup.evals.semi import Semi
from selfsup.optim import build, lr_at
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.subset import Subset

SHORT = {"share": 0.5, "epochs": 2, "batch": 8}


def test_a_part_has_as_many_of_each_class_those_of_lowshots_first_split() -> None:
    label = np.array([2, -1, 0, 1, 1, 0, 2, -1, 0, 1, 2, 1])
    numbers = Subset(2, seed=3).numbers(label)
    assert np.bincount(label[numbers]).tolist() == [2, 2, 2]
    known = np.flatnonzero(label >= 0)
    assert numbers.tolist() == sorted(known[draw(label[known], 2, 3, 3)[0]])
    assert Subset().numbers(label).tolist() == known.tolist()
    assert Subset(9).numbers(label).tolist() == known.tolist()  # of classes that have fewer
    others = {tuple(Subset(1, seed=seed).numbers(label)) for seed in range(8)}
    assert len(others) > 1


def test_a_part_of_a_data_set_numbers_its_samples_anew(home: Home) -> None:
    whole = load(str(home.sets / "train" / "shards"))
    part = whole.part(Subset(3, seed=1))
    assert (part.num_samples, part.num_labelled, part.total, part.digest) == (6, 6, 16, whole.digest)
    assert part.chosen is not None
    own, all_samples = SampleReader(part, "image"), SampleReader(whole, "image")
    assert own.read(np.array([5, 0])) == all_samples.read(part.chosen[[5, 0]])
    assert pickle.loads(pickle.dumps(part)) == part != whole
    assert whole.part(Subset()) is whole
    few = load(str(home.sets / "few" / "shards"))
    assert (few.part(Subset()).num_samples, few.num_samples) == (2, 16)


def test_its_training_is_of_a_share_drawn_by_the_seed_by_vissls_settings(home: Home) -> None:
    run, other = home.plan(evals__semi=SHORT, seeds=2, baselines=False)
    tuned = run.tuned["semi"]
    assert (tuned.train.num_samples, tuned.steps, tuned.size.num_samples) == (8, 2, 8)
    assert tuned.pretrain.identity["subset"] == {"per_class": 4, "seed": 0}
    assert other.tuned["semi"].pretrain.identity["subset"] == {"per_class": 4, "seed": 1}
    assert "selfsup.pipelines.data.subset" in tuned.pretrain.entries
    published = Semi.Hyper()
    assert (published.epochs, published.batch, published.lr, published.weight_decay) == (70, 256, 0.05, 0)
    optim = tuned.run.optim
    assert (optim.name, optim.momentum, optim.nesterov, optim.lr_batch) == ("sgd", 0.9, True, 256)
    rates = [lr_at(epoch, optim, steps=70, warmup=0, peak=1.0) for epoch in range(70)]
    assert rates == pytest.approx([1.0] * 30 + [0.1] * 40)
    assert tuned.run.hyper.mixup == tuned.run.backbone.drop_path == 0
    assert tuned.run.backbone.pool == run.run.backbone.pool


def test_fewer_samples_than_a_batch_fill_it_up(home: Home) -> None:
    tuned = home.run(evals__semi={"share": 0.125, "batch": 8, "epochs": 3}).tuned["semi"]
    assert (tuned.train.num_samples, tuned.steps) == (2, 3)
    epoch, index = tuned.order.take(0, 0, 3)
    assert set(index.ravel()) <= {0, 1}
    assert epoch.ravel().tolist() == [0, 1, 2]


def test_less_than_a_sample_of_each_class_is_refused(home: Home) -> None:
    message = r"evals\.semi\.share: 0\.01 is less than one sample of each class: train has 16 labelled"
    with pytest.raises(SpecError, match=PLACE + message):
        home.run(evals__semi={"share": 0.01, "batch": 8})


def test_unlabelled_samples_are_left_out_of_fine_tuning(home: Home) -> None:
    data = {split: str(home.sets / name / "shards") for split, name in (("train", "few"), ("val", "val"))}
    run = home.run(evals__finetune={"epochs": 2, "batch": 8, "warmup": 0, "data": data}, stream__remainder="wrap")
    assert run.tuned["finetune"].train.num_samples == 2
    assert run.tuned["finetune"].pretrain.identity["subset"] == "labelled"


def test_nesterovs_momentum_is_torchs() -> None:
    from test_mixing import VIT, supervised

    from selfsup.sections import Optim

    assert build(supervised(VIT), Optim(name="sgd", nesterov=True)).defaults["nesterov"]
