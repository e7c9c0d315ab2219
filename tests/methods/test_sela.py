"""SeLa: its labels against Sinkhorn and Knopp's in float64, and when they change."""

import numpy as np
import pytest
import torch

from selfsup.method import TrainInfo
from selfsup.optim import build, lr_at
from selfsup.spec import read


def test_the_loss_is_of_all_classifiers(setting) -> None:
    method, batch = setting("sela")
    features = method.backbone.pooled(batch.views[0].value)
    weights, biases = method.classifiers.weight.view(3, 4, -1), method.classifiers.bias.view(3, 4)
    logs = []
    for head in range(3):
        for number, sample in enumerate(batch.sample.tolist()):
            logits = weights[head] @ features[number] + biases[head]
            logs.append(logits.logsumexp(0) - logits[method.labels[sample, head]])
    torch.testing.assert_close(method(batch).loss, torch.stack(logs).mean())


def test_at_first_labels_are_random_and_balanced(setting) -> None:
    method, _ = setting("sela")
    assert all(labels.bincount().tolist() == [2, 2, 2, 2] for labels in method.labels.T)
    assert not method.labels[:, 0].equal(method.labels[:, 1])


def test_labels_are_a_transport_of_what_the_classifiers_say_of_the_latest_features(setting) -> None:
    method, batch = setting("sela", sharpness=2.0)
    torch.nn.init.normal_(method.classifiers.weight, std=0.1)
    features, late = torch.randn(8, 48), torch.randn(2, 48)
    method.after_step(0.0, {"sample": torch.arange(8), "features": features})
    method.after_step(0.1, {"sample": torch.tensor([5, 2]), "features": late})
    features[[5, 2]] = late
    scores, rounds = method.classifiers(features).detach().double().numpy().reshape(8, 3, 4), []
    for head in range(3):
        power = np.exp(2 * (scores[:, head] - np.log(np.exp(scores[:, head]).sum(1, keepdims=True))))
        sample, error, done = np.ones(8), np.inf, 0
        while error >= 0.1:
            before, cluster = sample, 2 / (sample @ power)
            sample, done = 1 / (power @ cluster), done + 1
            error = np.abs(before / sample - 1).sum() if done % 10 == 1 else error
        assert method.labels[:, head].tolist() == (power * cluster).argmax(1).tolist()
        rounds.append(done)
    assert method.rounds.tolist() == rounds
    log = method(batch).log
    assert (log["rounds"], log["imbalance"]) == (max(rounds), method.imbalance.max())
    assert 0 < log["imbalance"] < 0.1


def test_rounds_that_are_too_few_show(setting) -> None:
    method, batch = setting("sela", sharpness=50.0, iterations=20)
    torch.nn.init.normal_(method.classifiers.weight)
    method.after_step(0.1, {"sample": torch.arange(8), "features": torch.randn(8, 48)})
    log = method(batch).log
    assert log["rounds"] == 11
    assert log["imbalance"] > 0.1


def test_labels_change_ever_more_rarely(setting) -> None:
    method, batch = setting("sela", relabels=4)
    kind = type(method)
    method = kind(
        method.hyper,
        dict(method.encoders.items()),
        TrainInfo(num_samples=8, num_classes=3, num_steps=55, steps_per_epoch=7),
    )
    found, aux = [], method(batch).aux
    for step in range(55):
        method.labels.fill_(-1)
        method.after_step(step / 55, aux)
        if method.labels.ge(0).all():
            found.append(step + 1)
    assert found == [7, 10, 19, 34]  # after the first epoch, then at 1, 4 and 9 sixteenths of the other 48 steps


def test_nothing_moves_before_the_first_labels(setting) -> None:
    method, _ = setting("sela")
    assert {method.param_options(name, weight).frozen_until for name, weight in method.named_parameters()} == {0.2}


def test_the_recipe_moves_weights_as_the_authors_script_does(setting) -> None:
    """All parameters in one group of torch's SGD, of which biases and norms decay, too; batches of 256 at 0.08."""
    method, _ = setting("sela", "cnn")
    spec = read("in1k/sela")
    optimizer = build(method, spec.optim)
    settings = {(group["lr"], group["momentum"], group["weight_decay"]) for group in optimizer.param_groups}
    assert settings == {(0.08, 0.9, 1e-5)}
    assert spec.train.batch == spec.optim.lr_batch
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)


def test_the_recipe_has_the_learning_rates_of_the_authors_epochs() -> None:
    """A tenth less every 150 epochs, and a thousandth from 350 on, in 401 epochs; the first of ours teaches nothing."""
    optim = read("in1k/sela").optim
    for epoch in range(401):
        step = 100 * (epoch + 1) + 1  # of 100 an epoch
        share = 0.1 ** (epoch // 150) if epoch < 350 else 0.1**3
        assert lr_at(step, optim, steps=40200, warmup=0, peak=0.08) == pytest.approx(0.08 * share), epoch
        assert lr_at(step + 97, optim, steps=40200, warmup=0, peak=0.08) == pytest.approx(0.08 * share), epoch
