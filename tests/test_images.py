"""What images add, against numbers by hand and a simulation with known truth."""

import math
from pathlib import Path

import numpy as np
import pytest

from selfsup import hits
from selfsup.sweeps.report import images

HALF = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)


def test_flips_give_a_floor_where_two_seeds_happen_to_agree_in_their_accuracy() -> None:
    """Both have 2 of 4 right and disagree on 2: f = 1/2, sqrt(1/2 / (2 * 4)) = 1/4; of three, (2 + 2 + 2) / 12."""
    assert images.floor(HALF) == pytest.approx(25)
    assert images.floor(np.vstack([HALF, [[1, 0, 0, 1]]])) == pytest.approx(25)
    assert images.floor(np.vstack([HALF[:1], HALF[:1]])) == 0
    assert images.floor(HALF[:1]) is None
    same = np.vstack([HALF[:1]] * 4)  # 3 degrees of freedom beside 1
    assert images.independent([HALF, same]) == (pytest.approx(12.5), pytest.approx([625, 0]))


def test_the_floor_of_blocks_is_of_what_seeds_do_not_explain() -> None:
    """Arms that flip together have none. One flips twice, the other never: residuals of 1/4 in both arms and seeds on
    two of four images, 8 / 16 in all; over 4^2 images and one degree of freedom, 1 / 32; half of it an arm's, twice.
    """
    assert images.blocked([HALF, HALF]) == (0, pytest.approx([0, 0]))
    still = np.vstack([HALF[:1], HALF[:1]])
    assert images.blocked([HALF, still]) == (pytest.approx(100 * 32**-0.5), pytest.approx([312.5, 312.5]))


def test_the_part_of_images_in_a_level() -> None:
    """One seed, 3 of 4: 3/4 * 1/4 / 3 = 1/16. Two that disagree on half of them: MS_images = MS_rest = 1/3, so none.

    Two that agree: the images' means are 1, 1, 0, 0 and vary by 1/3, of four 1/12.
    """
    assert images.level(np.array([[1, 1, 1, 0]], bool)) == pytest.approx(25)
    assert images.level(HALF) == pytest.approx(0, abs=1e-6)
    assert images.level(np.vstack([HALF[:1], HALF[:1]])) == pytest.approx(100 * math.sqrt(1 / 12))
    assert math.isnan(images.level(np.ones((2, 1), bool)))


def test_the_paired_part_of_a_difference() -> None:
    """One seed each: differences 0, 1, -1, 0 vary by 2/3, their mean by 1/6. An arm does not differ from itself."""
    assert images.difference(HALF[:1], HALF[1:]) == pytest.approx(100 * math.sqrt(1 / 6))
    assert images.difference(HALF[:1], HALF[:1]) == 0
    with pytest.raises(AssertionError, match="other images"):
        images.difference(HALF, HALF[:, :3])


def test_a_simulation_with_known_truth() -> None:
    """Accuracies that seeds and images make vary as the parts say, and paired images cancel what arms share."""
    draw, seeds, number, tries = np.random.default_rng(0), 3, 200, 2000
    chance = draw.beta(0.5, 0.3, (tries, 1, number))
    one, other = (draw.random((tries, seeds, number)) < np.clip(chance + step, 0, 1) for step in (0.0, 0.05))
    floors = np.array([images.floor(held) for held in one])
    parts = np.array([images.level(held) for held in one])
    paired = np.array([images.difference(*both) for both in zip(one, other, strict=True)])
    within = 100 * one.mean(2).std(1, ddof=1)  # between the seeds of one set of images
    assert np.sqrt(np.square(floors).mean()) == pytest.approx(np.sqrt(np.square(within).mean()), rel=0.05)
    whole = 100 * one.mean((1, 2)).std()
    assert np.square(parts).mean() + np.square(floors).mean() / seeds == pytest.approx(whole**2, rel=0.08)
    assert paired.mean() < 0.3 * parts.mean()


def test_bits_read_back(tmp_path: Path) -> None:
    right = {"top1": HALF.ravel()[:7], "top5": np.ones(7, bool)}
    hits.save(tmp_path / "stage", "abc", {**right, "lr": 0.1})
    data = (tmp_path / "stage" / hits.NAME).read_bytes()
    seen = hits.read(data)
    assert seen is not None
    assert seen.images == "abc"
    assert {name: list(held) for name, held in seen.right.items()} == {n: list(held) for n, held in right.items()}
    assert [hits.read(wrong) for wrong in (b"", b"[]", data.replace(b"7", b"17"), data[:-5])] == [None] * 4


def test_images_are_those_of_the_data_and_the_labels() -> None:
    label = np.array([0, 1, 1])
    assert hits.identity("a", label) == hits.identity("a", label.copy())
    assert len({hits.identity("a", label), hits.identity("b", label), hits.identity("a", label[:2])}) == 3
