"""VQ-VAE: its codes, its loss beside transformers' quantizer, and what it paints."""

import pytest
import torch
import torch.nn.functional as F
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer

from selfsup.parts.quantizers import VectorQuantizer


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
