"""SeLa: its labels against Sinkhorn and Knopp's in float64, and when they change."""

import numpy as np
import torch

from selfsup.method import TrainInfo


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
    method, _ = setting("sela", sharpness=2.0, iterations=300)
    torch.nn.init.normal_(method.classifiers.weight, std=0.1)
    features, late = torch.randn(8, 48), torch.randn(2, 48)
    method.after_step(0.0, {"sample": torch.arange(8), "features": features})
    method.after_step(0.1, {"sample": torch.tensor([5, 2]), "features": late})
    features[[5, 2]] = late
    scores = method.classifiers(features).detach().double().numpy().reshape(8, 3, 4)
    for head in range(3):
        power = np.exp(2 * (scores[:, head] - np.log(np.exp(scores[:, head]).sum(1, keepdims=True))))
        cluster, sample = np.ones(4), np.ones(8)
        for _ in range(300):
            cluster = 2 / (sample @ power)
            sample = 1 / (power @ cluster)
        plan = sample[:, None] * power * cluster
        assert np.allclose(plan.sum(0), 2)
        assert method.labels[:, head].tolist() == plan.argmax(1).tolist()


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
