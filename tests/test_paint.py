"""Images painted from features: shares of variance by hand and of a simulation, what they are made of, the stage."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plans import PLACE, Home
from toy_sweep import arm, study, sweep

from selfsup.errors import SpecError
from selfsup.pipelines.stages.paint import Pixels, shares
from selfsup.sweeps.report.files import pictures
from selfsup.sweeps.report.page import page
from selfsup.sweeps.report.tables import ablation
from selfsup.views import Center


def test_shares_of_two_images_by_hand() -> None:
    """One pixel. Originals 0 and 1 vary by 1/2. Paintings 0, 0.2 and 0.8, 1: within 0.02; means 0.1, 0.9 vary by 0.32.

    Errors of the means 0.01, less 0.02 / 2: none is left. Between: 0.32 - 0.01 = 0.31 of 0.33.
    """
    originals = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
    painted = np.array([[0, 0.2], [0.8, 1]], np.float32).reshape(2, 2, 1, 1, 1)
    assert shares(originals, painted) == pytest.approx({"explained": 100, "shared": 100 * 31 / 33}, rel=1e-5)


def test_shares_of_ideal_and_of_blind_paintings() -> None:
    """What is known has variance 9, what is not 16: an ideal painter explains and shares 36 %, a blind one nothing.

    One that is sure, and wrong, shares all and explains less than nothing.
    """
    draw = np.random.default_rng(0)
    known, rest, blind = (draw.normal(0, scale, (400, 5, 3, 4, 4)) for scale in (3, 4, 5))
    truth = known[:, 0] + draw.normal(0, 4, (400, 3, 4, 4))
    assert shares(truth, known[:, :1] + rest) == pytest.approx({"explained": 36, "shared": 36}, abs=1.5)
    assert shares(truth, blind) == pytest.approx({"explained": 0, "shared": 0}, abs=1.5)
    wrong = shares(truth, blind[:, :1].repeat(5, 1))
    assert wrong == pytest.approx({"explained": -100, "shared": 100}, abs=5)


def test_pixels_are_those_that_are_evaluated_and_small(home: Home) -> None:
    run = home.run()
    assert run.val
    pixels = Pixels(run.train, run.val, Center(size=8, share=1.0)).read(np.array([0, 15, 16]))
    assert pixels.shape == (3, 3, 8, 8)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert pixels.std() > 0.4  # of numbers drawn from all of 0 to 255: 0.58


def test_the_stage_is_asked_for_and_follows_the_features(home: Home) -> None:
    plain, asked = home.plan(), home.plan(paint={})
    for before, after in zip(plain, asked, strict=True):
        assert [stage.kind for stage in after.stages if stage not in before.stages] == ["paint"]
        [paint] = [stage for stage in after.stages if stage.kind == "paint"]
        assert paint.after == (after.embeds["knn"],)
        assert paint.space == "paint"
    keys = {
        home.run(paint=paint, seeds=[seed]).drawings[-1].key
        for paint, seed in (({}, 0), ({"steps": 2000}, 0), ({"steps": 1999}, 0), ({}, 1))
    }
    assert len(keys) == 3
    alone = home.run(paint={}, evals={})
    assert [stage.kind for stage in alone.stages] == ["pretrain", "pictures", "embed", "paint"]
    assert alone.stages[2].key == plain[-1].embeds["knn"].key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train": "train"}, "evals": {}}, "paint: it paints validation images, and there are none"),
        ({"input": {"audio": {}}}, "paint: it paints images, and the run is of audio"),
        ({"paint__size": 20}, "paint.size: .*multiple of 8"),
    ],
)
def test_what_cannot_be_painted_is_refused(home: Home, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=PLACE + message):
        home.plan(**{"paint": {}, **changes})


def test_the_report_shows_paintings_of_baselines_too_with_their_shares() -> None:
    one, results = study({"0.75, 8": [60.0], "0.5, 8": [40.0]})
    floor, more = arm("raw pixels", [30.0], {}, "pixels")
    numbers = {"paint/explained": 41.2, "paint/shared": 55.5, "paint/images": 64.0}
    painted = [replace(each, metrics=dict(each.metrics) | numbers) for each in (more[0], results[0])]
    whole = ablation(sweep(one, baselines=[floor]), [*painted, results[1]])
    tracker: Any = SimpleNamespace(fetch=lambda _, path: b"PNG" if path == "paint/painted.png" else None)
    shown = pictures(whole, tracker)
    caption = ": 41 % explained, 56 % shared"
    assert shown == {"painted": {f"raw pixels{caption}": b"PNG", f"default{caption}": b"PNG"}}
    text = page(whole, [], shown)
    assert text.index("<h2>Painted from features</h2>") < text.index(f"<figcaption>raw pixels{caption}</figcaption>")
