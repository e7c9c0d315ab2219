"""Every operation, and their composition, against torchvision's on float tensors, one sample at a time."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms import functional as TF

from selfsup.pipelines.modalities.image import PHOTO_DRAWS
from selfsup.pipelines.modalities.pixels import augment
from selfsup.views import Crop

CLOSE = {"rtol": 0, "atol": 1e-5}
SIMCLR = Crop(
    jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, gray=0.2, blur=0.5, solarize=0.2
)  # fmt: skip


def images(n=16, height=24, width=40):
    """Noise; but also greys, black, white, a few levels and pure colors, where hue and clamps have corners."""
    generator = torch.Generator().manual_seed(0)
    made = torch.rand(n, 3, height, width, generator=generator)
    made[0] = made[0, :1]
    made[1], made[2] = 0, 1
    made[3] = (made[3] * 3).round() / 3
    made[4] = made[4].round()
    return made


def one_by_one(operation, batch, *parameters):
    return torch.stack([operation(x, *(p[i].item() for p in parameters)) for i, x in enumerate(batch)])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_an_adjustment_is_torchvisions(name):
    batch = images()
    factor = torch.linspace(-0.5, 0.5, len(batch)) if name == "hue" else torch.linspace(0, 1.9, len(batch))
    expected = one_by_one(getattr(TF, f"adjust_{name}"), batch, factor)
    torch.testing.assert_close(getattr(augment, name)(batch, factor), expected, **CLOSE)


def test_grayscale_and_solarize_are_torchvisions():
    batch = images()
    torch.testing.assert_close(augment.grayscale(batch), TF.rgb_to_grayscale(batch, 3), **CLOSE)
    torch.testing.assert_close(augment.solarize(batch), TF.solarize(batch, 0.5), **CLOSE)
    torch.testing.assert_close(augment.solarize(batch, 0.8), TF.solarize(batch, 0.8), **CLOSE)


@pytest.mark.parametrize("kernel", [1, 3, 9, 23])
def test_blur_is_torchvisions(kernel):
    batch = images()
    sigma = torch.linspace(0.1, 2.0, len(batch))
    expected = one_by_one(lambda x, s: TF.gaussian_blur(x, [kernel, kernel], [s, s]), batch, sigma)
    torch.testing.assert_close(augment.gaussian_blur(batch, sigma, kernel), expected, **CLOSE)


def test_a_kernel_must_be_odd_and_fit():
    sigma = torch.ones(16)
    with pytest.raises(AssertionError, match="no center"):
        augment.gaussian_blur(images(), sigma, 4)
    with pytest.raises(AssertionError, match="does not fit into 8 pixels"):
        augment.gaussian_blur(images(height=8), sigma, 17)


def by_torchvision(image, crop, draw):
    """What `photometric` promises, for one sample, in torchvision's terms."""
    jitter, b, c, s, h, *ranks, gray, blur, sigma, solarize = draw.tolist()
    adjust = (
        lambda x: TF.adjust_brightness(x, max(0, 1 - crop.brightness) + b * 2 * crop.brightness),
        lambda x: TF.adjust_contrast(x, max(0, 1 - crop.contrast) + c * 2 * crop.contrast),
        lambda x: TF.adjust_saturation(x, max(0, 1 - crop.saturation) + s * 2 * crop.saturation),
        lambda x: TF.adjust_hue(x, crop.hue * (2 * h - 1)),
    )
    if crop.gray_first and gray < crop.gray:
        image = TF.rgb_to_grayscale(image, 3)
    if jitter < crop.jitter:
        for number in sorted(range(4), key=lambda i: ranks[i]):
            image = adjust[number](image)
    if not crop.gray_first and gray < crop.gray:
        image = TF.rgb_to_grayscale(image, 3)
    if blur < crop.blur:
        width = crop.blur_sigma[0] + (crop.blur_sigma[1] - crop.blur_sigma[0]) * sigma
        image = TF.gaussian_blur(image, [7, 7], [width, width])  # a tenth of 64 pixels, odd
    return TF.solarize(image, 0.5) if solarize < crop.solarize else image


def made(batch, crop, draws):
    images = batch.clone()
    augment.photometric(images, crop, draws)
    return images


def uniform(n, seed=0):
    return torch.rand(n, PHOTO_DRAWS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("crop", [SIMCLR, replace(SIMCLR, gray_first=True)], ids=["jitter first", "gray first"])
def test_photometric_is_torchvisions_in_every_order(crop):
    batch, draws = images(256, 64, 64), uniform(256)
    assert len({tuple(order) for order in draws[:, 5:9].argsort(1).tolist()}) == 24
    expected = torch.stack([by_torchvision(x, crop, draw) for x, draw in zip(batch, draws, strict=True)])
    ours = made(batch, crop, draws)
    # Solarizing is a step: a value within rounding of its threshold may fall on either side.
    on_the_step = ((expected - 0.5).abs() < 1e-4) & ((ours - 0.5).abs() < 1e-4)
    assert on_the_step.float().mean() < 1e-3
    torch.testing.assert_close(ours[~on_the_step], expected[~on_the_step], rtol=0, atol=2e-5)


def test_each_operation_happens_with_its_probability():
    batch, draws = images(2000, 8, 8), uniform(2000)
    for name in ("gray", "solarize"):
        share = (made(batch, Crop(**{name: 0.3}), draws) != batch).any(3).any(2).any(1)[5:].float().mean()
        assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5, name


def test_a_plain_crop_changes_nothing():
    batch = images()
    assert made(batch, Crop(), uniform(len(batch))).equal(batch)
    assert made(batch, Crop(jitter=1.0), uniform(len(batch))).equal(batch)


def test_cells_are_changed_each_as_an_image_of_its_own_and_their_rest_is_not():
    """Three rows and columns of cells of 64 pixels; two more pixels a side."""
    batch, crop = images(6, 194, 194), replace(SIMCLR, cells=3)
    draws = uniform(54)
    ours = made(batch, crop, draws.view(6, -1))
    cells = [(slice(64 * row, 64 * row + 64), slice(64 * column, 64 * column + 64))
             for row in range(3) for column in range(3)]  # fmt: skip
    for sample in range(6):
        for number, cell in enumerate(cells):
            image = batch[sample][:, *cell].contiguous()[None]
            alone = made(image, SIMCLR, draws[9 * sample + number][None])
            assert ours[sample][:, *cell].equal(alone[0])
    assert ours[:, :, 192:].equal(batch[:, :, 192:])
    assert ours[:, :, :, 192:].equal(batch[:, :, :, 192:])


def test_the_split_of_a_batch_does_not_matter():
    batch, draws = images(32, 224, 224), uniform(32)
    together = made(batch, SIMCLR, draws)
    for part in (slice(0, 1), slice(1, 3), slice(3, 32)):
        assert made(batch[part], SIMCLR, draws[part]).equal(together[part])
