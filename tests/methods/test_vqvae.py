"""VQ-VAE: its codes, its losses beside transformers' quantizer and torch's Gumbel-softmax, and what it paints."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer

from selfsup.parts import noise
from selfsup.parts.quantizers import GumbelQuantizer, VectorQuantizer


def test_codes_loss_and_gradient_are_transformers() -> None:
    """Chameleon's loss has the commitment at weight 1 and the codebook's own at beta, which here is an average."""
    ours = VectorQuantizer(12, 5, decay=0.9, unit=False)
    theirs = ChameleonVQVAEVectorQuantizer(ChameleonVQVAEConfig(num_embeddings=12, embed_dim=5, beta=0.0))
    theirs.embedding.weight.data.copy_(ours.codebook)
    one, two = torch.randn(2, 3 * 4, 5).requires_grad_(), None
    two = one.detach().clone().requires_grad_()
    quantized = ours(one)
    value, loss, code = theirs(two.mT.unflatten(2, (3, 4)))
    torch.testing.assert_close(quantized.value, value.flatten(2).mT)
    torch.testing.assert_close(quantized.loss, loss)
    assert quantized.code.flatten().equal(code)
    weight = torch.randn(2, 12, 5)
    (quantized.loss + (quantized.value * weight).sum()).backward()
    (loss + (value.flatten(2).mT * weight).sum()).backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_a_code_is_the_mean_of_its_vectors_and_a_rare_one_a_vector_of_the_batch() -> None:
    quantizer = VectorQuantizer(2, 2, decay=0.5, unit=False)
    quantizer.count.fill_(2.0)
    quantizer.total.copy_(2 * torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    z = torch.tensor([[[3.0, 0.0], [5.0, 0.0], [1.0, 1.0], [2.0, 2.0]]])
    quantizer.update(z, torch.tensor([[0, 0, 0, 1]]))
    expected = [[(1 + 4.5) / 2.5, 0.5 / 2.5], [1.0 / 1.5, (1 + 1) / 1.5]]
    torch.testing.assert_close(quantizer.codebook, torch.tensor(expected))
    for _ in range(6):  # 1.5 / 2^4 is less than a tenth of the even share, 2
        quantizer.update(z, torch.zeros(1, 4, dtype=torch.int64))
    assert quantizer.codebook[1].tolist() == [1.0, 1.0]


def test_at_unit_length_the_nearest_code_is_that_of_the_largest_cosine() -> None:
    quantizer, z = VectorQuantizer(9, 4, decay=0.9, unit=True), torch.randn(2, 5, 4)
    quantizer.codebook.mul_(torch.rand(9, 1) + 0.5)
    cosines = F.cosine_similarity(z[:, :, None], quantizer.codebook, dim=3)
    assert quantizer(z).code.equal(cosines.argmax(dim=2))


def test_perplexity_counts_codes_that_are_used_alike() -> None:
    quantizer = VectorQuantizer(9, 4, decay=0.9, unit=True)
    assert quantizer.perplexity.item() == 1.0  # before the first step
    quantizer.count[:4] = 0.25
    assert quantizer.perplexity.item() == pytest.approx(4.0)


def test_codes_and_pixels_come_from_the_view(setting) -> None:
    method, batch = setting("vqvae")
    view = batch.views[0].value
    codes = method.codes(view)
    assert codes.shape == view.value.shape[:2]
    assert 0 <= codes.min() <= codes.max() < method.num_codes
    assert method.reconstruct(batch).shape == view.value.shape


def test_relaxed_codes_are_torchs(monkeypatch) -> None:
    """F.gumbel_softmax takes minus the logarithm of exponential draws as its noise; F.kl_div is from even use."""
    quantizer = GumbelQuantizer(12, 5, decay=0.9, temperature=0.4)
    one, noise_of_draws = torch.randn(2, 7, 12).requires_grad_(), noise.gumbel(torch.rand(2, 2), (7, 12))
    two, codebook = one.detach().clone().requires_grad_(), quantizer.codebook.detach().clone().requires_grad_()
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda own: own.copy_((-noise_of_draws).exp()))
    value = F.gumbel_softmax(two, tau=0.4) @ codebook
    even = torch.full_like(two, -math.log(12))
    divergence = F.kl_div(even, two.log_softmax(dim=2), reduction="sum", log_target=True) / 14
    quantized = quantizer(one, noise_of_draws)
    torch.testing.assert_close(quantized.value, value)
    torch.testing.assert_close(quantized.loss, divergence)
    assert quantized.code.equal(two.argmax(dim=2))
    weight = torch.randn(2, 7, 5)
    (quantized.loss + (quantized.value * weight).sum()).backward()
    (divergence + (value * weight).sum()).backward()
    torch.testing.assert_close(one.grad, two.grad)
    torch.testing.assert_close(quantizer.codebook.grad, codebook.grad)


def test_a_trained_gumbel_quantizer_takes_the_likeliest_code() -> None:
    quantizer, scores = GumbelQuantizer(12, 5, decay=0.5, temperature=1.0), torch.randn(2, 7, 12)
    quantized = quantizer(scores)
    assert quantized.value.equal(quantizer.codebook[scores.argmax(dim=2)])
    quantizer.update(torch.tensor([[0, 0, 3, 4]]))
    assert quantizer.count.tolist() == [1.0, 0, 0, 0.5, 0.5, *[0] * 7]
    assert quantizer.perplexity.item() == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_a_discrete_vae_learns_all_weights_by_dall_es_loss(setting) -> None:
    method, batch = setting("vqvae", quantizer="gumbel")
    method.kl_weight.fill_(6.6)
    out = method(batch)
    out.loss.backward()
    assert all(weight.grad.any() for weight in method.parameters() if weight.requires_grad)
    expected = out.log["pixels"] + 6.6 / (4 * 4 * 3) * out.log["divergence"]
    torch.testing.assert_close(out.loss, expected)
    again = method(batch._replace(draws=batch.draws.flip(0)))
    assert not again.loss.equal(out.loss)
    assert method.codes(batch.views[0].value).equal(out.aux["code"])


def test_relaxation_and_weight_follow_half_cosines_of_the_run(setting) -> None:
    """In ten steps the temperature falls in five and stays, the weight rises in four."""
    method, _ = setting("vqvae", quantizer="gumbel", temperature_fall=0.5, kl_rise=0.4)
    seen = [(method.quantizer.temperature.item(), method.kl_weight.item())]
    for step in range(6):
        method.after_step(step / 10, {"code": torch.zeros(8, 16, dtype=torch.int64)})
        seen.append((method.quantizer.temperature.item(), method.kl_weight.item()))
    falling, rising = ([(1 - math.cos(math.pi * step / steps)) / 2 for step in range(steps)] for steps in (5, 4))
    assert [temperature for temperature, _ in seen] == pytest.approx(
        [1 - 15 / 16 * share for share in falling] + [1 / 16] * 2
    )
    assert [weight for _, weight in seen] == pytest.approx([6.6 * share for share in rising] + [6.6] * 3)
