"""MultiMAE against a derivation patch by patch, with torch's multi-head attention; its masks against its code's."""

import math

import numpy as np
import pytest
import torch
from loops.modalities import PARTS, N, derived, embedded, painted
from precision import double_precision
from scipy import stats
from small import without

from selfsup.dirichletmask import DirichletMask
from selfsup.masks import IndexMask
from selfsup.parts.patch import patchify
from selfsup.spec import read


def test_value_and_gradient_are_those_derived_patch_by_patch(setting) -> None:
    method, batch = setting("multimae", samples=3, double=True)
    batch.views[1].value.value[0, :, :9] = 0.0  # unknown depth
    with double_precision():
        ours, theirs = (
            method(batch).loss,
            derived({part: method.get_submodule(path) for part, path in PARTS.items()}, batch),
        )
    torch.testing.assert_close(ours, theirs)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    pairs = zip(*(torch.autograd.grad(loss, weights, allow_unused=True) for loss in (ours, theirs)), strict=True)
    for mine, other in pairs:
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other)


def test_samples_without_depth_or_classes_are_seen_by_their_other_patches(setting) -> None:
    """The mask written out: patches of what a sample lacks go behind all others, which keep their order."""
    method, batch = setting("multimae", samples=3, double=True)
    batch = without(batch, [1])._replace(maps=(batch.maps[0].index_fill(0, torch.tensor([1, 2]), -1),))
    lacking = [range(0), range(N, 3 * N), range(2 * N, 3 * N)]
    order = [sorted(own, key=lacking[row].__contains__) for row, own in enumerate(batch.views[0].mask.order.tolist())]
    assert order != batch.views[0].mask.order.tolist()
    seen = batch.views[0].mask.keep.shape[1]
    mask = IndexMask(*(torch.tensor([own[part] for own in order]) for part in (slice(seen), slice(seen, None))))
    shown = batch._replace(views=(batch.views[0]._replace(mask=mask), *batch.views[1:]))
    with double_precision():
        parts = {part: method.get_submodule(path) for part, path in PARTS.items()}
        torch.testing.assert_close(method(batch).loss, derived(parts, shown))


def test_pictures_show_seen_patches_as_they_are_and_the_rest_as_it_is_judged(setting) -> None:
    method, batch = setting("multimae", samples=3)
    image, depth, seg = method.paintings(batch)
    assert [picture.kind for picture in (image, depth, seg)] == ["image", "depth", "seg"]
    hidden = batch.views[0].mask.removed.view(3, 3, N)
    for at, (picture, patch) in enumerate(((image, 4), (depth, 4), (seg, 2))):
        seen, painted, original = (row[:, None] if row.ndim == 3 else row for row in picture[1:])
        seen, painted, original = (patchify(row, patch).value for row in (seen, painted, original))
        assert seen[~hidden[:, at]].equal(original[~hidden[:, at]])
        assert painted[~hidden[:, at]].equal(original[~hidden[:, at]])
        assert (seen[hidden[:, at]] == (-1 if at == 2 else 0)).all()
        error = (painted - original).abs()
        if at < 2:
            own = [(error if at else error.square())[row][hidden[row, at]].mean() for row in range(3)]
            torch.testing.assert_close(torch.stack(own).mean(), method(batch).log["depth" if at else "rgb"])
    assert original.equal(patchify(batch.maps[0][:, None, 1::2, 1::2], 2).value)


def test_maps_are_painted_of_images_alone(setting) -> None:
    """All patches of an image are seen, and none of its depth and segmentation, whatever they are."""
    method, batch = setting("multimae", samples=2, double=True)
    parts, view = {part: method.get_submodule(path) for part, path in PARTS.items()}, batch.views[0].value
    trunk = method.backbone.trunk
    with double_precision(), torch.no_grad():
        depth, seg = (method.decoded_map(name, view).view(2, 16, 16) for name in ("depth", "seg"))
        for number, image in enumerate(view.value.view(2, N, 4, 4, 3)):
            every = embedded(parts, {"rgb": list(image)})
            first = trunk.cls_token[0, 0] + trunk.pos_embed[0, 0]
            seen = trunk.norm(trunk.blocks(torch.stack([first, *every])[None]))[0]
            own = painted(parts, "depth", 1, seen, [*range(N)]).view(4, 4, 4, 4)
            torch.testing.assert_close(depth[number], own.transpose(1, 2).reshape(16, 16).float())
            scores = painted(parts, "seg", 2, seen, [*range(N)]).view(4, 4, 2, 2, 5)
            coarse = scores.argmax(4).transpose(1, 2).reshape(8, 8)
            assert seg[number].equal(coarse.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert method.decoded_maps(method.Hyper(seg=False)) == ("depth",)


def test_a_modality_is_turned_off(setting) -> None:
    for hyper, names in (
        ({"seg": False}, ["rgb", "depth", "norm_rgb"]),
        ({"depth": False, "norm_rgb": False}, ["rgb", "seg"]),
        ({"depth": False, "seg": False}, ["rgb", "norm_rgb"]),
    ):
        method, batch = setting("multimae", **hyper)
        assert list(method(batch).log) == names
        assert len(batch.views) == 1 + hyper.get("depth", True)
        assert len(batch.maps) == hyper.get("seg", True)


def by_numpy(noise: np.ndarray, visible: int, alpha: float) -> list[int]:
    """Return the tokens that are seen, as the authors' code chooses them, of the draws of one sample."""
    gamma = stats.gamma(alpha).ppf(noise[:3])
    number = [round(float(share)) for share in visible * gamma / gamma.sum()]
    within, ties = noise[3 : 3 + 3 * N].reshape(3, N), noise[3 + 3 * N :]
    chosen = [task * N + place for task in range(3) for place in np.argsort(within[task])[: number[task]]]
    rest = [token for token in range(3 * N) if token not in chosen]
    return [*sorted(chosen, key=lambda token: ties[token]), *sorted(rest, key=lambda token: ties[token])][:visible]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_visible_patches_are_chosen_by_the_published_rule(alpha: float) -> None:
    rule = DirichletMask(0.75, 3, alpha)
    noise = torch.rand(50, rule.num_draws((4, 4)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = rule.draw(noise, (4, 4))
    assert mask.keep.tolist() == [by_numpy(row, 12, alpha) for row in noise.numpy()]
    assert mask.order.sort(dim=1).values.equal(torch.arange(3 * N).expand(50, -1))


def test_shares_have_the_moments_of_a_dirichlet_distribution() -> None:
    """Mean 1/3, and variance 2/9 over 3 alpha + 1: of 4000 samples to four standard errors."""
    rule = DirichletMask(0.5, 3, 2.0)
    shares = rule._shares(torch.rand(4000, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(shares.sum(1), torch.ones(4000, dtype=torch.float64))
    variance = 2 / 9 / 7
    assert (shares.mean(0) - 1 / 3).abs().max() < 4 * math.sqrt(variance / 4000)
    assert (shares.var(0) / variance - 1).abs().max() < 0.1


def test_the_recipe_is_the_authors_configuration() -> None:
    """multimae-b_98_rgb+-depth-semseg_1600e.yaml, on eight GPUs."""
    spec = read("in1k/multimae")
    optim, hyper = spec.optim, spec.hyper
    assert (optim.lr, optim.lr_batch, optim.warmup_lr, optim.min_lr, optim.weight_decay) == (1e-4, 256, 1e-6, 0.0, 0.05)
    assert (spec.train.duration.epochs, optim.warmup.epochs, spec.train.batch) == (1600, 40, 8 * 256)
    assert (hyper.visible * 196, hyper.alpha, hyper.classes) == (98, 1, 133)
    assert (hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads) == (256, 2, 8)
