"""Objects read off maps against torchvision and a loop, and average precision against torchmetrics' and by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.detection._mean_ap import MeanAveragePrecision
from torchvision.ops import masks_to_boxes

from selfsup.parts.objects import Objects, average_precision, boxes_of, objects_of

SIDE, LARGE = 24, 97


def rectangles(
    boxes: list[list[int]], classes: list[int], scores: list[float] | None = None, side: int = SIDE
) -> Objects:
    masks = np.zeros((len(boxes), side, side), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    sure = np.array([1.0] * len(boxes) if scores is None else scores, np.float32)
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64), masks, sure)


def test_boxes_and_masks_are_those_of_torchvision() -> None:
    inst = np.random.default_rng(0).integers(-30, 7, (SIDE, SIDE)).clip(0)
    inst[inst == 3] = 0  # numbers may have gaps
    numbers = [number for number in range(1, 7) if (inst == number).any()]
    masks = torch.tensor(np.stack([inst == number for number in numbers]))
    inclusive = masks_to_boxes(masks).numpy()
    objects = objects_of(np.stack([inst * 0, inst]))
    np.testing.assert_array_equal(objects.boxes, inclusive + np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(boxes_of(inst), objects.boxes)
    np.testing.assert_array_equal(objects.masks, masks)


def test_the_class_is_that_of_most_pixels_and_an_object_without_one_is_left_out() -> None:
    inst = np.array([[1, 1, 1, 0], [4, 4, 9, 9]])
    seg = np.array([[5, 2, 2, 7], [-1, -1, -1, 3]])
    objects = objects_of(np.stack([seg, inst]))
    assert objects.classes.tolist() == [2, 3]
    assert objects.boxes.tolist() == [[0, 0, 3, 1], [2, 1, 4, 2]]
    assert objects.masks.sum((1, 2)).tolist() == [3, 2]


def test_a_map_without_objects_has_none() -> None:
    objects = objects_of(np.zeros((2, SIDE, SIDE), np.int32))
    assert [part.shape for part in objects] == [(0, 4), (0,), (0, SIDE, SIDE), (0,)]


def test_perfect_guesses_have_all_and_none_have_nothing() -> None:
    true = [rectangles([[0, 0, 5, 5], [8, 8, 20, 11]], [0, 3]), rectangles([], []), rectangles([[1, 1, 9, 9]], [3])]
    nothing = rectangles([], [])
    assert average_precision((one, one) for one in true) == {"boxes": (100, 100), "masks": (100, 100)}
    assert average_precision((one, nothing) for one in true) == {"boxes": (0, 0), "masks": (0, 0)}


def test_average_precision_is_worked_out() -> None:
    """Two objects of 10 x 10. The surest guess overlaps the first by 80 of 116, so it is right up to 0.65: 4 of 10.

    The next one is empty ground, the third the second object itself. At the first 4 overlaps precision is 1 up to a
    recall of 1/2, which are 51 of 101 recalls, and 2/3 above; at the other 6 it is 1/3 up to 1/2, and 0 above.
    """
    true = rectangles([[0, 0, 10, 10], [12, 12, 22, 22]], [0, 0])
    guess = rectangles([[0, 0, 12, 8], [0, 14, 5, 19], [12, 12, 22, 22]], [0, 0, 0], [0.9, 0.8, 0.7])
    first, rest = (51 + 50 * 2 / 3) / 101, 51 / 3 / 101
    expected = pytest.approx((100 * (0.4 * first + 0.6 * rest), 100 * first))
    assert average_precision([(true, guess)]) == {"boxes": expected, "masks": expected}


def drawn(draw: np.random.Generator, number: int) -> NDArray[np.int64]:
    """-> (number, 4): boxes of 9 to 20 pixels"""
    corners = draw.integers(0, LARGE - 20, (number, 2))
    return np.concatenate([corners, corners + draw.integers(9, 21, (number, 2))], axis=1)


def guessed(draw: np.random.Generator, true: Objects) -> Objects:
    """Return boxes near those of the objects and elsewhere, whose masks lack a row, some of another class."""
    near = true.boxes.astype(int) + draw.integers(-3, 4, true.boxes.shape)
    boxes = np.concatenate([near, drawn(draw, 3)]).clip(0, LARGE)
    classes = [*true.classes.tolist(), *draw.integers(0, 3, 3).tolist()]
    made = rectangles(boxes.tolist(), classes, draw.random(len(boxes)).tolist(), side=LARGE)
    made.masks[:, 10] = False
    return made


def tensors(objects: Objects) -> dict[str, torch.Tensor]:
    values: dict[str, NDArray[np.generic]] = {"labels": objects.classes, "scores": objects.scores}
    values |= {"boxes": objects.boxes, "masks": objects.masks}
    return {name: torch.as_tensor(value) for name, value in values.items()}


def test_average_precision_is_that_of_torchmetrics_own() -> None:
    """Its class of old counts in torch; the one of today asks pycocotools. No overlap is 0.6, which it rounds up."""
    draw = np.random.default_rng(19)
    true = [rectangles(drawn(draw, 4).tolist(), draw.integers(0, 3, 4).tolist(), side=LARGE) for _ in range(12)]
    guess = [guessed(draw, one) for one in true]
    own = average_precision(zip(true, guess, strict=True))
    for name, kind in (("boxes", "bbox"), ("masks", "segm")):
        metric = MeanAveragePrecision(iou_type=kind)
        metric.update(list(map(tensors, guess)), list(map(tensors, true)))
        expected = metric.compute()
        assert own[name] == pytest.approx((100 * float(expected["map"]), 100 * float(expected["map_50"])), rel=1e-5)
        assert 0 < own[name][0] < own[name][1] < 100
