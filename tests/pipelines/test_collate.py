from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from selfsup.masks import BlockMask, BoolMask, Grid, MaskRule, RandomMask
from selfsup.parts.patch import unpatchify
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.data.collate import ahead, collate
from selfsup.pipelines.data.philox import DRAW, MASK, PHOTO, STEP_MASK, uniform
from selfsup.pipelines.modalities.image import PHOTO_DRAWS, ImageStats
from selfsup.pipelines.modalities.pixels.augment import photometric
from selfsup.views import Crop, Views

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
STATS = {"image": ImageStats(mean=MEAN, std=STD)}
JITTER = Crop(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2, blur=0.5, solarize=0.2)
PLAIN = Views((Crop(),))


def columns(n=12, size=32, views=1):
    made = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    made.flags.writeable = False  # as Ray hands them out
    rows = {"index": np.arange(n) * 7, "epoch": np.arange(n) // 8, "label": np.arange(n) % 5 - 1}
    boxes = {f"box{number}": np.full((n, 7), number, np.float32) for number in range(views)}
    return rows | boxes | {f"view{number}": made for number in range(views)}


def made(rows, views=PLAIN, *, seed=0, step=0, patch=None):
    return collate(rows, views, seed=seed, step=step, patch=patch, stats=STATS, device="cpu")


def test_a_plain_view_is_normalized_pixels():
    rows = columns()
    batch = made(rows)
    expected = (rows["view0"].transpose(0, 3, 1, 2) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert batch.views[0].value.dtype == torch.float32
    np.testing.assert_allclose(batch.views[0].value, expected, atol=1e-5)
    assert (batch.views[0].modality, batch.views[0].mask) == ("image", None)
    assert (batch.sample.tolist(), batch.label.tolist()) == (rows["index"].tolist(), rows["label"].tolist())
    assert (batch.views[0].box.shape, batch.draws.shape) == ((12, 7), (12, 0))


def test_a_token_encoder_gets_the_same_pixels_as_patches():
    tokens, images = made(columns(), patch=8).views[0].value, made(columns()).views[0].value
    assert isinstance(tokens, Tokens)
    assert tokens.value.shape == (12, 16, 192)
    assert unpatchify(tokens.value, grid=(4, 4), patch=8).equal(images)


def test_photometric_draws_and_masks_are_counted():
    rows = columns(views=2)
    crops = tuple(replace(JITTER, mask=RandomMask(ratio)) for ratio in (0.75, 0.5))
    batch = made(rows, Views(crops, draws=3), seed=3, patch=8)

    def draw(purpose, draws):
        given = {"epoch": rows["epoch"], "index": rows["index"], "purpose": purpose, "draws": draws}
        return torch.from_numpy(uniform(seed=3, **given))

    pixels = torch.tensor(rows["view0"].transpose(0, 3, 1, 2)) / 255
    for number, purpose in enumerate((PHOTO, PHOTO + 16)):
        images = pixels.clone()
        photometric(images, JITTER, draw(purpose, PHOTO_DRAWS))
        expected = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        ours = unpatchify(batch.views[number].value.value, grid=(4, 4), patch=8)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    for number, ratio in enumerate((0.75, 0.5)):
        expected = RandomMask(ratio).draw(draw(MASK + 16 * number, 16), (4, 4))
        assert all(one.equal(other) for one, other in zip(batch.views[number].mask[:2], expected[:2], strict=True))
    assert batch.draws.equal(draw(DRAW, 3))
    assert [view.box[:, 0].tolist() for view in batch.views] == [[0.0] * 12, [1.0] * 12]


def test_cells_have_draws_of_their_own():
    rows, crop = columns(), replace(JITTER, cells=2)
    images = torch.tensor(rows["view0"].transpose(0, 3, 1, 2)) / 255
    given = {"epoch": rows["epoch"], "index": rows["index"], "purpose": PHOTO, "draws": 4 * PHOTO_DRAWS}
    photometric(images, crop, torch.from_numpy(uniform(seed=0, **given)))
    expected = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(made(rows, Views((crop,))).views[0].value, expected, rtol=0, atol=1e-5)


def test_blocks_are_drawn_for_each_view():
    rule, rows = BlockMask(0.3, 0.5), columns(views=2)
    batch = made(rows, Views((Crop(mask=rule), Crop(mask=replace(rule, share=0.0)))), patch=8)
    first, second = (view.mask for view in batch.views)
    numbers = {"epoch": rows["epoch"], "index": rows["index"], "draws": rule.num_draws((4, 4))}
    draws = torch.from_numpy(uniform(seed=0, purpose=MASK, **numbers))
    assert first.where.equal(rule.draw(draws, (4, 4)).where)
    assert first.number.equal(first.where.sum(1))
    assert not second.where.any()


@dataclass(frozen=True)
class RowMask(MaskRule):
    """One row of tokens, the same for all samples of a step, in which each sample has one token of its own."""

    def num_draws(self, grid: Grid) -> int:  # noqa: ARG002
        return 2

    def num_shared(self, grid: Grid) -> int:  # noqa: ARG002
        return 1

    def draw(self, noise: torch.Tensor, grid: Grid, device="cpu") -> BoolMask:
        row, column = ((noise * torch.tensor(grid)).floor().long()).unbind(1)
        where = torch.nn.functional.one_hot(row * grid[1] + column, grid[0] * grid[1]).bool()
        return BoolMask(where.to(device), where.sum(1))

    def typical(self, grid: Grid) -> tuple[int, int]:
        return grid[0] * grid[1], 1


def test_numbers_that_a_step_shares_are_those_of_the_step_whatever_its_rows():
    rows, views = columns(48), Views((Crop(), Crop(mask=RowMask())))
    rows |= {"view1": rows["view0"], "box1": rows["box0"]}
    half = {name: column[24:] for name, column in rows.items()}
    shared = [uniform(seed=0, epoch=np.zeros(1), index=np.array([step]), purpose=STEP_MASK + 16, draws=1)[0, 0]
              for step in range(6)]  # fmt: skip
    assert len({int(4 * number) for number in shared}) > 1
    for step, number in enumerate(shared):
        row, column = np.divmod(made(rows, views, step=step, patch=8).views[1].mask.where.int().argmax(1).numpy(), 4)
        assert set(row.tolist()) == {int(4 * number)}
        assert len(set(column.tolist())) == 4  # each sample's own
        other = made(half, views, step=step, patch=8).views[1].mask
        assert other.where.int().argmax(1).tolist() == (4 * row + column)[24:].tolist()


def flat(batch):
    """Every tensor of a batch with a masked token view."""
    [view] = batch.views
    return [view.value.value, view.value.coord, *view.mask[:2], view.box, batch.sample, batch.label, batch.draws]


def test_a_sample_is_the_same_in_every_batch():
    views = Views((replace(JITTER, mask=RandomMask(0.5)),), draws=2)
    rows = columns()
    whole = flat(made(rows, views, patch=8))
    for chosen in (slice(0, 1), slice(1, 9), [11, 3, 0]):
        part = made({name: column[chosen] for name, column in rows.items()}, views, patch=8)
        for ours, expected in zip(flat(part), whole, strict=True):
            assert ours.equal(expected[chosen])


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": np.full(12, 5)}, {"index": np.arange(100, 112)}])
def test_seed_epoch_and_sample_each_change_what_is_drawn(changed):
    views = Views((replace(JITTER, mask=RandomMask(0.5)),), draws=2)
    seed = changed.get("seed", 0)
    other = made(columns() | {k: v for k, v in changed.items() if k != "seed"}, views, seed=seed, patch=8)
    before = made(columns(), views, patch=8)
    assert not other.views[0].value.value.equal(before.views[0].value.value)
    assert not other.views[0].mask.keep.equal(before.views[0].mask.keep)
    assert not other.draws.equal(before.draws)


def test_a_mask_without_tokens_is_refused():
    with pytest.raises(AssertionError, match="masking needs tokens"):
        made(columns(), Views((Crop(mask=RandomMask(0.5)),)))


def test_rows_stay_as_they_are_on_a_cpu():
    rows = [columns(), columns(views=2)]
    assert [id(row) for row in ahead(iter(rows), "cpu")] == [id(row) for row in rows]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("number", [0, 1, 3])
def test_rows_on_a_gpu_are_the_same_in_the_same_order(number):
    rows = [columns() | {"view0": np.full((4, 8, 8, 3), place, np.uint8)} for place in range(number)]
    got = [(row["view0"].float().mean().item(), row["index"].tolist()) for row in ahead(iter(rows), "cuda")]
    assert got == [(place, rows[place]["index"].tolist()) for place in range(number)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_batch():
    rows, views = columns(64, 64), Views((replace(JITTER, mask=RandomMask(0.75)),))
    ours = collate(rows, views, seed=0, step=0, patch=8, stats=STATS, device="cuda")
    expected = made(rows, views, patch=8)
    for found, tensor in zip(flat(ours), flat(expected), strict=True):
        assert found.is_cuda
        close = (found.cpu().double() - tensor.double()).abs() < 1e-4
        assert close.float().mean() > 0.999  # a value on the step of solarize may fall on either side
