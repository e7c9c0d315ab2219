"""The mean corruption error against its definition, by a probe that is told everything, and where it cannot be had."""

import numpy as np
import pytest
from plans import PLACE, Home
from pydantic import ValidationError

from selfsup.errors import SpecError
from selfsup.evals.corruptions import ALEXNET, Corruptions
from selfsup.evaluator import Features, numbers
from selfsup.parts.corruptions import KINDS
from selfsup.pipelines.stages.versions.corrupted import Corrupted

LABEL = np.arange(60) % 3


def features(wrong: np.ndarray) -> Features:
    """Return one-hot features of which the first wrong[v] samples of version v show another class."""
    value = np.eye(3, dtype=np.float32)[LABEL]
    views = np.stack([value] * len(wrong))
    for view, number in zip(views, wrong, strict=True):
        view[:number] = np.roll(view[:number], 1, axis=1)
    return Features(value, LABEL, value, LABEL, 3, views=views)


def run(wrong: np.ndarray, baseline: str | dict[str, float]) -> dict[str, float]:
    hyper = Corruptions.Hyper.model_validate({"baseline": baseline, "epochs": 20})
    return numbers(dict(Corruptions(hyper).run(features(wrong), seed=0)))


def test_errors_are_means_over_severities_and_mce_over_kinds_relative_to_a_baseline() -> None:
    wrong = np.arange(75) % 61
    errors = {kind: np.mean(wrong[5 * number : 5 * number + 5]) / 60 for number, kind in enumerate(KINDS)}
    relative = {kind: error / ALEXNET[kind] for kind, error in errors.items()}
    own = {kind: 10.0 + number for number, kind in enumerate(KINDS)}
    to_own = {kind: 100 * error / own[kind] for kind, error in errors.items()}
    for baseline, expected in (("alexnet", relative), ("none", errors), (own, to_own)):
        scores = run(wrong, baseline)
        assert scores["top1"] == 100
        assert scores["mce"] == pytest.approx(100 * np.mean(list(expected.values())))
        assert {kind: scores[kind] for kind in KINDS} == pytest.approx({kind: 100 * errors[kind] for kind in KINDS})


@pytest.mark.parametrize("wrong", [{"snow": 50.0}, dict.fromkeys(KINDS, 0.0), dict.fromkeys([*KINDS, "rain"], 50.0)])
def test_a_baseline_of_other_kinds_or_without_errors_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="greater than 0, for each of gaussian_noise, "):
        Corruptions.Hyper(baseline=wrong)


def test_versions_of_validation_samples_are_a_stage_beside_the_features_of_all(home: Home) -> None:
    plain, both = home.run(evals={"linear": {}}), home.run(evals={"linear": {}, "corruptions": {}})
    assert both.embeds["corruptions"].key == plain.embeds["linear"].key
    assert both.views.keys() == {"corruptions"}
    stage = both.views["corruptions"]
    assert "train" not in stage.identity
    assert "pipelines.stages.versions.corrupted" in "".join(stage.entries)
    other = home.run(evals={"corruptions": {}}, data__train="other")
    assert other.views["corruptions"].key != stage.key, "another encoder"


def test_recordings_and_channels_that_cannot_be_corrupted_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Corrupted, "unfit", classmethod(lambda *_: "it corrupts RGB images of 8 bits, not 4 of 8"))
    with pytest.raises(SpecError, match=rf"{PLACE}evals\.corruptions: it corrupts RGB .* of 8; leave it out"):
        home.run(evals={"corruptions": {}})
