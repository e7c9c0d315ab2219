"""Pictures of an encoder: neighbors, principal components and attention against their definitions, and every sheet."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plans import Home, weights
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from tiny import BACKBONE, write_encoder

from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.stages.encoder_source import EncoderSource
from selfsup.pipelines.stages.pictures import tiles
from selfsup.pipelines.stages.visualize import sheets, spaced, visualize
from selfsup.pipelines.stages.visuals import attention_maps, feature_map, neighbors, patch_colors
from selfsup.pretrained import PretrainedEncoder, load_encoder
from selfsup.sections import Backbone, image_shape


@pytest.fixture
def model(tmp_path: Path) -> PretrainedEncoder:
    return load_encoder(write_encoder(Backbone(**BACKBONE), tmp_path), crop=1.0)


@pytest.fixture
def source(model: PretrainedEncoder, tmp_path: Path) -> EncoderSource:
    backbone, [weights] = Backbone(**BACKBONE), tmp_path.glob("*.safetensors")
    return EncoderSource("simclr", backbone, 0, image_shape(backbone), model.view, model.stats, weights)


@pytest.fixture
def raw() -> torch.Tensor:
    return torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8)


def test_neighbors_are_scikit_learn_s_by_cosine_without_the_sample_itself() -> None:
    features, shown = torch.randn(40, 6), torch.tensor([0, 7, 39])
    near = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features).kneighbors(features[shown])[1]
    assert neighbors(features, shown).tolist() == near[:, 1:].tolist()
    assert neighbors(features[:3], shown[:1]).shape == (1, 2)


def test_colors_of_patches_are_the_first_components_of_all_together() -> None:
    patches = torch.randn(3, 5, 4, 4) * torch.tensor([9.0, 5.0, 3.0, 1.0, 0.5]).view(5, 1, 1)
    values = patches.flatten(2).mT.reshape(-1, 5).numpy()
    pca = PCA(3).fit(values)
    signs = np.sign(pca.components_[np.arange(3), np.abs(pca.components_).argmax(1)])
    projected = pca.transform(values) * signs
    low, high = np.quantile(projected, [0.01, 0.99], axis=0)
    expected = 255 * ((projected - low) / (high - low)).clip(0, 1)
    colors = patch_colors(patches)
    assert colors is not None
    np.testing.assert_allclose(colors.reshape(-1, 3), expected, atol=1)
    assert patch_colors(patches[..., :1, :1]) is None


def test_attention_runs_from_its_least_to_its_largest_and_is_first_the_mean(
    model: PretrainedEncoder, raw: torch.Tensor
) -> None:
    with torch.inference_mode():
        maps = attention_maps(model, raw[:2])
    assert maps is not None
    assert [rows.shape for rows in maps] == [(2, 4, 4, 3)] * 3  # of two heads
    darkest, brightest = (68, 1, 84), (253, 231, 36)
    for rows in maps:
        for pixels in rows.reshape(2, 16, 3).tolist():
            assert {darkest, brightest} <= {tuple(pixel) for pixel in pixels}


def test_a_map_has_the_color_of_each_class_and_gray_without() -> None:
    """Classes have hues of their own before any has a second shade of one."""
    features = torch.cat([torch.randn(10, 4) + 9, torch.randn(10, 4) - 9, 9 * torch.eye(10, 4)])
    sheet, again = (feature_map(features, np.repeat([0, -1, 1], 10), ("cat", "dog")) for _ in range(2))
    assert sheet is not None
    assert again is not None
    assert sheet.tobytes() == again.tobytes()
    colors = {color for _, color in sheet.getcolors(2**24)}
    assert {(31, 119, 180), (255, 127, 14), (211, 211, 211)} <= colors
    assert feature_map(features[:5], np.zeros(5, int), ("cat",)) is None


def test_every_sheet_is_of_the_same_samples(source: EncoderSource, raw: torch.Tensor) -> None:
    label = np.arange(12) % 2
    with torch.inference_mode():
        drawn = dict(sheets(source, raw, label, ("a", "b")))
    assert [*drawn] == ["neighbors", "patches", "attention", "map"]
    first = np.asarray(drawn["neighbors"])[:136]
    for name in ("patches", "attention"):
        np.testing.assert_array_equal(np.asarray(drawn[name])[:136], first)
    assert drawn["neighbors"].size[1] == 5 * 132 + 4
    assert drawn["attention"].size[1] == 4 * 132 + 4


def test_raw_samples_have_their_neighbors_by_color_and_a_map(source: EncoderSource) -> None:
    """Six red images and six green ones, each with some noise, are told apart."""
    noise = torch.randint(0, 40, (12, 32, 32, 3), dtype=torch.uint8)
    raw = noise + torch.tensor([[200, 0, 0], [0, 200, 0]]).repeat(6, 1).byte().view(12, 1, 1, 3)
    drawn = dict(sheets(replace(source, method="pixels"), raw, np.arange(12) % 2, ("a", "b")))
    assert [*drawn] == ["neighbors", "map"]
    rows = np.asarray(drawn["neighbors"])[4:, 4:, 0].reshape(5, 132, 8, 132).mean((1, 3))
    is_red = rows > rows.mean()
    assert (is_red == is_red[0]).all()
    assert is_red[0].any()
    assert not is_red[0].all()


def test_tiles_of_another_size_are_enlarged_to_those_of_the_first_row() -> None:
    small, large = np.full((2, 4, 4, 3), 9, np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
    sheet = np.asarray(tiles([large, small]))
    assert sheet.shape == (2 * 132 + 4, 2 * 132 + 4, 3)
    assert (sheet[136:264, 4:132] == 9).all()
    wide = tiles([np.zeros((3, 8, 32, 3), np.uint8), np.zeros((3, 2, 8, 3), np.uint8)])
    assert wide.size == (2 * 132 + 4, 3 * 36 + 4)  # in columns


def test_the_stage_is_asked_for_and_writes_its_files(home: Home) -> None:
    plain, asked = home.run(), home.run(visualize=True)
    assert [stage.kind for stage in asked.stages if stage not in plain.stages] == ["visualize"]
    raw, random, _ = home.plan(visualize=True)
    assert asked.pretrain
    drawing, [other], [bare] = asked.drawings[-1], random.drawings, raw.drawings
    for stage in (asked.pretrain, drawing, other, bare):
        stage.claim()
    weights(asked.pretrain.folder / ENCODER, seed=random.run.seed)
    assert visualize(asked, drawing) == visualize(random, other) == {"images": 4.0, "pictures": 3.0}
    for one, same in zip(drawing.artifacts(), other.artifacts(), strict=True):
        assert one.read_bytes() == same.read_bytes()  # those of initial weights
    assert visualize(raw, bare) == {"images": 4.0, "pictures": 1.0}
    names = [path.name for path in drawing.artifacts()]
    assert names == ["attention.png", "neighbors.png", "patches.png"]  # of four samples there is no map
    for path in drawing.artifacts():
        Image.open(path).verify()


def test_samples_are_evenly_spaced() -> None:
    assert spaced(1000, 3).tolist() == [0, 499, 999]
    assert spaced(2, 8).tolist() == [0, 1]
