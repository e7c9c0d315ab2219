"""Crops against torchvision's and Pillow's of the whole image, at the scales at which a JPEG is decoded."""

import io
import threading

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from selfsup.pipelines.modalities.pixels.crops import crops, fill, single_threaded
from selfsup.pipelines.modalities.pixels.decode import RGB, decode

HEIGHT, WIDTH = 427, 640


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(sklearn.datasets.load_sample_image("china.jpg"))


@pytest.fixture(scope="module")
def jpeg(photo: Image.Image) -> bytes:
    sink = io.BytesIO()
    photo.save(sink, "JPEG", quality=92)
    return sink.getvalue()


def by_torchvision(jpeg: bytes, box: tuple[int, ...], size: int, resample: str) -> torch.Tensor:
    """Its random-resized-crop of the whole image, in floats: (size, size, 3) in [0, 255]."""
    image = torch.tensor(decode(jpeg, min_height=HEIGHT, min_width=WIDTH)).permute(2, 0, 1).double()
    how = TF.InterpolationMode(resample)
    return TF.resized_crop(image, *box, [size, size], how, antialias=True).clamp(0, 255).permute(1, 2, 0)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("box", "size"), [((10, 20, 200, 300), 224), ((0, 0, HEIGHT, WIDTH), 224), ((100, 50, 90, 60), 96)]
)
def test_a_crop_is_torchvisions_of_the_whole_image(jpeg: bytes, box: tuple[int, ...], size: int, resample: str) -> None:
    (ours,) = crops(jpeg, np.array([box], float), [size], [resample])
    assert (ours.shape, ours.dtype) == ((size, size, 3), np.uint8)
    error = (torch.tensor(ours) - by_torchvision(jpeg, box, size, resample)).abs()
    assert error.mean() < 0.5  # rounding alone makes 0.25
    assert error.max() < 10  # a bicubic filter overshoots between the passes, and bytes cannot


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("box", "size", "mean_error"),
    [
        ((11, 21, 401, 402), 64, 2.0),  # at 2/8, or the scaling of the DCT would show
        ((100.3, 77.7, 130.2, 99.9), 24, 4.0),  # likewise, and hardly anything is left to the resize
        ((0, 0, HEIGHT, WIDTH), 40, 2.0),
        ((100.3, 77.7, 230.2, 199.9), 100, 0.5),  # whole
    ],
)
def test_a_box_between_pixels_is_what_pillow_makes_of_the_whole_image(
    jpeg: bytes, box: tuple[float, ...], size: int, mean_error: float, resample: str
) -> None:
    top, left, height, width = box
    how = Image.Resampling[resample.upper()]
    whole = Image.open(io.BytesIO(jpeg)).resize((size, size), how, box=(left, top, left + width, top + height))
    (ours,) = crops(jpeg, np.array([box]), [size], [resample])
    assert np.abs(ours.astype(int) - np.asarray(whole)).mean() < mean_error


@pytest.mark.parametrize("size", [12, 24, 48])
def test_a_crop_is_where_it_should_be_at_every_scale(jpeg: bytes, size: int) -> None:
    box = np.array([[101.0, 77, 97, 97]])  # at 1/8, 2/8 and whole
    (ours,) = crops(jpeg, box, [size], ["bicubic"])
    error = {}
    for shift in [(0, 0), (1.5, 0), (-1.5, 0), (0, 1.5), (0, -1.5)]:
        top, left = box[0, :2] + shift
        whole = Image.open(io.BytesIO(jpeg)).resize((size, size), 3, box=(left, top, left + 97, top + 97))
        error[shift] = np.abs(ours.astype(int) - np.asarray(whole)).mean()
    assert min(error, key=error.__getitem__) == (0, 0)


def test_all_boxes_share_a_decode_that_is_large_enough_for_the_most_demanding(jpeg: bytes) -> None:
    boxes = np.array([[0, 0, 400, 400], [50, 60, 40, 40]], dtype=float)
    large, small = crops(jpeg, boxes, [64, 40], ["bicubic", "bilinear"])
    assert large.shape == (64, 64, 3)
    exact = decode(jpeg, min_height=HEIGHT, min_width=WIDTH)[50:90, 60:100]  # nothing is interpolated
    np.testing.assert_array_equal(small, exact)


@pytest.mark.parametrize("box", [(10, 20, 200, 300), (10.5, 20.5, 200, 300)])
def test_a_flip_mirrors_its_crop_and_no_other(jpeg: bytes, box: tuple[float, ...]) -> None:
    boxes = np.array([box, box])
    plain, same = crops(jpeg, boxes, [64, 64], ["bicubic", "bicubic"])
    first, second = crops(jpeg, boxes, [64, 64], ["bicubic", "bicubic"], [True, False])
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(first, plain[:, ::-1])
    np.testing.assert_array_equal(second, plain)


def test_samples_are_filled_as_each_is_cropped_and_damaged_ones_are_named(jpeg: bytes) -> None:
    boxes = np.array([[[10, 20, 200, 300], [0.5, 0.5, 99, 98]], [[50, 60, 70, 80], [1, 2, 300, 400]]])
    flips = np.array([[True, False], [False, True]])
    out = [np.empty((3, size, size, 3), np.uint8) for size in (64, 40)]
    given = [jpeg, jpeg[:500], jpeg], boxes[[0, 0, 1]], ["bicubic", "bilinear"], flips[[0, 0, 1]]
    assert fill(*given, RGB, out) == [1]
    for place, box, flip in zip((0, 2), boxes, flips, strict=True):
        for view, crop in zip(out, crops(jpeg, box, [64, 40], ["bicubic", "bilinear"], list(flip)), strict=True):
            np.testing.assert_array_equal(view[place], crop)


def test_a_box_may_pass_the_edge_by_a_rounding_error(jpeg: bytes) -> None:
    box = np.array([[-1e-9, 0.1, HEIGHT + 1e-9, WIDTH - 0.1 + 1e-9]])
    assert crops(jpeg, box, [16], ["bicubic"])[0].shape == (16, 16, 3)


def test_a_thread_of_crops_is_alone_and_others_keep_their_threads() -> None:
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)

    def alone() -> None:
        single_threaded()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    assert (found, torch.get_num_threads()) == ([1], 2)
    torch.set_num_threads(before)
