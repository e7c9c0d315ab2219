import pytest
import torch
from torch import Tensor

from selfsup.method import load
from selfsup.parts.contrastive import paired_nce
from selfsup.parts.tokens import Tokens
from selfsup.spec import read
from selfsup.tokenizing import load as tokenizer

CLIP = load("clip")


def test_value_and_gradient_of_the_loss_are_open_clips(setting) -> None:
    from open_clip.loss import ClipLoss

    method, batch = setting("clip")
    image, text = (vectors.detach().requires_grad_() for vectors in method.pair(batch))
    ours, theirs = paired_nce(image, text, scale=torch.tensor(9.0)), ClipLoss()(image, text, torch.tensor(9.0))
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(loss, (image, text)) for loss in (ours, theirs))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(method(batch).loss, paired_nce(image, text, scale=torch.tensor(1 / 0.07)))


def test_the_scale_is_bounded_after_a_step(setting) -> None:
    method, _ = setting("clip")
    with torch.no_grad():
        method.logits.log_scale.fill_(9.0)
        method.after_step(0.0, {})
    assert method.logits.scale.item() == pytest.approx(100.0, rel=1e-6)


def test_masked_patches_are_not_seen_and_kept_ones_have_their_places(setting) -> None:
    """FLIP: as many images of half the patches are embedded alike, whatever the other half shows."""
    method, batch = setting("clip", mask_ratio=0.5)
    view = batch.views[0]
    assert view.mask.keep.shape == (8, 8)
    image, _ = method.pair(batch)
    value = view.value.value.masked_fill(view.mask.removed[..., None], 7.0)
    other = batch._replace(views=(view._replace(value=view.value._replace(value=value)), batch.views[1]))
    torch.testing.assert_close(method.pair(other)[0], image)
    hidden = method.backbone(view.value, view.mask.keep)[:, 0]
    expected = torch.nn.functional.normalize(method.projections["image"](hidden), dim=1)
    torch.testing.assert_close(image, expected)


def test_a_text_tower_is_transformers_with_its_weights(setting) -> None:
    """CLIP's text model of 2 heads, with exact GELU: features of the end of each text, and gradients of weights."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    method, batch = setting("clip")
    tower, trunk = method.encoders["text"], method.encoders["text"].trunk
    config = CLIPTextConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=128,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        hidden_act="gelu",
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=0,
    )
    other = CLIPTextModelWithProjection(config)
    other.load_state_dict(renamed(trunk, method.projections["text"].weight), strict=False)
    numbers = torch.tensor([[256, 9, 8, 257, -1, -1, -1, -1], [256, 1, 2, 3, 4, 5, 6, 257]])
    view = batch.views[1].value
    tokens = Tokens(numbers.clamp_min(0)[..., None], view.coord[:2], view.grid, numbers >= 0)
    ours = method.projections["text"](tower.pooled(tokens))
    theirs = other(input_ids=numbers.clamp_min(0), attention_mask=(numbers >= 0).long()).text_embeds
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    table = other.get_input_embeddings().weight.grad
    torch.testing.assert_close(trunk.token_embed.weight.grad, table, rtol=1e-3, atol=1e-5)


def renamed(trunk: torch.nn.Module, projection: Tensor) -> dict[str, Tensor]:
    """Return the weights of a text tower by the names that transformers has for them."""
    start, state = "text_model.", {"text_projection.weight": projection}
    state |= {
        f"{start}embeddings.token_embedding.weight": trunk.token_embed.weight,
        f"{start}embeddings.position_embedding.weight": trunk.pos_embed,
        f"{start}final_layer_norm.weight": trunk.norm.weight,
        f"{start}final_layer_norm.bias": trunk.norm.bias,
    }
    for number, block in enumerate(trunk.blocks):
        layers = {"layer_norm1": block.norm1, "layer_norm2": block.norm2, "self_attn.out_proj": block.attn.proj}
        layers |= {"mlp.fc1": block.mlp.fc1, "mlp.fc2": block.mlp.fc2}
        here = f"{start}encoder.layers.{number}."
        for name, layer in layers.items():
            state |= {f"{here}{name}.weight": layer.weight, f"{here}{name}.bias": layer.bias}
        for part in ("weight", "bias"):
            chunks = getattr(block.attn.qkv, part).chunk(3)
            state |= {f"{here}self_attn.{name}_proj.{part}": chunk for name, chunk in zip("qkv", chunks, strict=True)}
    return {name: value.detach() for name, value in state.items()}


def test_a_token_reads_those_before_it_alone(setting) -> None:
    method, batch = setting("clip")
    view = batch.views[1].value
    changed = view._replace(value=view.value.clone())
    changed.value[:, 5:] = 9
    before, after = (method.encoders["text"](tokens) for tokens in (view, changed))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_words_have_the_numbers_of_open_clips_tokenizer() -> None:
    """The two numbers that CLIP's authors give to the begin and the end of a text, and those of a prompt."""
    import open_clip

    own = tokenizer("clip")
    assert (own.size, own.begin, own.end) == (49408, 49406, 49407)
    text = "A photo of a red sphere, left of 3 boxes!"
    expected = open_clip.tokenize([text])[0].tolist()
    numbers = own.tokens(text, 77)
    assert numbers == expected[: len(numbers)]
    assert not any(expected[len(numbers) :])


def test_the_recipe_is_that_of_slips_authors() -> None:
    """CLIP in table 1 of arXiv 2112.12750: main.py of its code, and the README's command for a ViT-B/16."""
    spec = read("yfcc15m/clip")
    optim = spec.optim
    assert (optim.name, optim.lr, optim.lr_rule) == ("adamw", 5e-4, "none")
    assert (optim.betas, optim.weight_decay) == ((0.9, 0.98), 0.5)
    assert (optim.warmup_lr, optim.min_lr, optim.warmup.epochs) == (1e-6, 1e-5, 1)
    assert (spec.train.batch, spec.train.duration.epochs) == (4096, 25)
    assert (spec.hyper.crop_min, spec.hyper.flip, spec.hyper.dim, spec.hyper.temperature) == (0.5, 0.0, 512, 0.07)
    text = spec.input.text
    assert (text.tokenizer, text.length, text.width, text.depth, text.heads) == ("clip", 77, 512, 12, 8)
