"""Diffusion against numbers derived by hand: the schedule, moments of noisy images, and samples of known noise."""

import math

import pytest
import torch
from torch import Tensor

from selfsup.parts.denoiser import Denoiser, waves
from selfsup.parts.diffusion import STEPS, drawn, fitted, noisy, rate, signal


def variances() -> list[float]:
    return [1e-4 + (0.02 - 1e-4) * step / 999 for step in range(1000)]


def test_what_is_left_is_the_product_of_what_each_step_leaves() -> None:
    left, expected = signal(), 1.0
    for step, variance in enumerate(variances()):
        expected *= 1 - variance
        assert left[step].item() == pytest.approx(expected, rel=1e-9)
    assert left[-1].item() == pytest.approx(4.036e-5, rel=1e-3)  # "KL about 1e-5 bits" of Ho et al.


def test_noise_at_once_has_the_moments_of_noise_step_by_step() -> None:
    """A pixel of 0.8: each step multiplies its mean by sqrt(1 - β), and its variance by 1 - β, and adds β."""
    mean, variance, noise = 0.8, 0.0, torch.randn(40_000, 1, 1, 1)
    for added in variances()[:301]:
        mean, variance = mean * math.sqrt(1 - added), variance * (1 - added) + added
    made = noisy(torch.full((40_000, 1, 1, 1), 0.8), noise, signal()[300].expand(40_000))
    assert made.mean().item() == pytest.approx(mean, abs=0.015)
    assert made.var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_who_knows_the_image_paints_it_on_a_straight_way_from_the_noise(steps: int) -> None:
    """Each step on the way is the image under the same noise, and less of it."""
    image, first, shares = torch.rand(3, 2, 8, 8) * 2 - 1, torch.randn(3, 2, 8, 8), signal().float()
    noise = (first - shares[-1].sqrt() * image) / (1 - shares[-1]).sqrt()
    seen: list[int] = []

    def oracle(value: Tensor, times: Tensor) -> Tensor:
        torch.testing.assert_close(value.float(), noisy(image, noise, shares[times]), atol=1e-4, rtol=0)
        seen.append(int(times[0]))
        return image

    torch.testing.assert_close(drawn(oracle, first, steps=steps).float(), image, atol=1e-5, rtol=0)
    assert (seen[0], len(seen)) == (STEPS - 1, steps)
    assert seen == sorted(seen, reverse=True)


def test_samples_of_a_gaussian_have_its_deviation() -> None:
    """Pixels of N(0, s²): the expected pixel is x sqrt(ᾱ) s² / (ᾱ s² + 1 - ᾱ), and the flow multiplies by s."""
    deviation, shares = 0.2, signal().float()

    def expected(value: Tensor, times: Tensor) -> Tensor:
        left = shares[times].view(-1, 1, 1, 1)
        return left.sqrt() * deviation**2 / (left * deviation**2 + 1 - left) * value

    noise = torch.randn(500, 1, 2, 2)
    torch.testing.assert_close(drawn(expected, noise, steps=500), deviation * noise, atol=0.02, rtol=0.02)


def test_steps_are_told_apart_by_sines_and_cosines() -> None:
    [[sine, slow, cosine, _]] = waves(torch.tensor([3]), 4).tolist()
    assert (sine, cosine, slow) == pytest.approx((math.sin(3), math.cos(3), math.sin(0.03)), rel=1e-5)


def test_an_untrained_denoiser_says_nothing_and_a_trained_one_hears_all_that_it_is_given() -> None:
    features = torch.randn(9, 5) * 3 + 7
    network = Denoiser(features, 2, 16)
    images, steps = torch.randn(9, 2, 16, 16), torch.randint(STEPS, (9,))
    assert (network(images, steps, features) == 0).all()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    value = network(images, steps, features)
    assert value.shape == images.shape
    value.square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())
    assert not torch.allclose(value, network(images, steps, features + 1))
    assert not torch.allclose(value, network(images, steps.flip(0), features))
    scaled = Denoiser(features * 2 - 3, 2, 16)  # features are normalized: their scale does not matter
    scaled.load_state_dict(network.state_dict() | {"mean": scaled.mean, "std": scaled.std})
    torch.testing.assert_close(scaled(images, steps, features * 2 - 3), value, atol=1e-4, rtol=1e-3)


def test_a_decoder_paints_what_its_features_say_and_is_a_function_of_the_seed() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    images = (0.6 * (features[:, :1] - features[:, 1:])).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    settings = {"steps": 60, "width": 16}
    network = fitted(features, images, **settings, seed=1)
    with torch.inference_mode():
        painted = drawn(lambda image, time: network(image, time, features[:2]), torch.randn(2, 1, 8, 8))
    assert (painted[0] > 0.3).all()
    assert (painted[1] < -0.3).all()
    weights = [
        fitted(features, images, steps=2, width=16, seed=seed).state_dict()["last.2.bias"].tolist()
        for seed in (1, 1, 2)
    ]
    assert weights[0] == weights[1] != weights[2]


def test_the_rate_rises_and_falls() -> None:
    assert [rate(done) for done in (0.025, 0.05, 0.525, 1.0)] == pytest.approx([0.5, 1.0, 0.5, 0.0])
