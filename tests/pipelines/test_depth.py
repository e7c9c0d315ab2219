"""Depth: its formats, its place beside images, pixel by pixel, and its normalization against NumPy's."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from arrays import npy, npz
from numpy.typing import NDArray
from tiny import BACKBONE

from selfsup.modality import DecodeError
from selfsup.pipelines import cost
from selfsup.pipelines.data import manifest, shards
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.depth import DepthInput, DepthMap, DepthMaps, decoded, standardized
from selfsup.pipelines.planning import plan
from selfsup.spec import read
from selfsup.views import Center, Crop, Views

DEPTH, KNOBS = DepthMaps(), DepthInput()
HEIGHT, WIDTH, SIDE = 32, 48, 16
ROW, COLUMN = np.indices((HEIGHT, WIDTH))
METERS = ((ROW * 64 + COLUMN + 1) / 1000).astype(np.float32)  # so that each value says its row and column


def tiff(values: NDArray) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, values)
    return sink.getvalue()


def placed(folder: Path, depth: NDArray, suffix: str = "depth.png") -> Manifest:
    """Return images whose red is a pixel's row, and green its column, with their depth."""
    image = np.stack([ROW, COLUMN, 0 * ROW], axis=2).astype(np.uint8)
    stored = png(np.round(1000 * depth).astype(np.uint16)) if suffix == "depth.png" else tiff(depth)
    return pack_annotated([AnnotatedSample(str(n), {"png": png(image), suffix: stored}) for n in range(8)], folder)


def rows(data: Manifest, crop: Crop | Center) -> list[dict[str, NDArray]]:
    order = SampleOrder(samples=8, batch=8, seed=0, lanes=1, chunk=1, mix=1)
    views = Views((crop, DepthMap(knobs=KNOBS, crop=crop, of=0)))
    return list(SampleStream(data, order, views, 4).rows([0], 0, 4, threads=1, memory=2**24))


def test_depth_is_of_the_same_pixels_as_the_image(tmp_path: Path) -> None:
    """Of crops that are not resized, mirrored or not, each value is that of the pixel's own row and column."""
    mirrored = set()
    for row in rows(placed(tmp_path, METERS), Crop(size=SIDE, share=0.5)):
        image, number = row["view0"].astype(int), np.rint(1000 * row["view1"][..., 0]).astype(int) - 1
        assert (number // 64 == image[..., 0]).all()
        assert (number % 64 == image[..., 1]).all()
        assert (row["box0"] == row["box1"]).all()
        mirrored |= set(row["box1"][:, 4].tolist())
    assert mirrored == {0.0, 1.0}


def test_depth_of_half_the_size_shows_the_same_part(tmp_path: Path) -> None:
    """Each pixel of the crop sees the pixel of the depth map that covers it: at half its row and column."""
    for row in rows(placed(tmp_path, METERS[::2, ::2], "depth.tiff"), Crop(size=SIDE, share=0.5)):
        image, number = row["view0"].astype(int), np.rint(1000 * row["view1"][..., 0]).astype(int) - 1
        assert (number // 64 == image[..., 0] // 2 * 2).all()
        assert (number % 64 == image[..., 1] // 2 * 2).all()
        assert (row["box0"][:, :4] == 2 * row["box1"][:, :4]).all()


@pytest.mark.parametrize(
    "data",
    [
        png(np.round(1000 * METERS).astype(np.uint16)),
        tiff(METERS),
        npy(METERS.astype(np.float64)),
        npz(depth=METERS[..., None]),
    ],
)
def test_formats_of_the_same_depth(data: bytes) -> None:
    np.testing.assert_allclose(decoded(data), METERS, rtol=1e-6)
    assert DEPTH.extent(data, DEPTH.Reading()) == (HEIGHT, WIDTH)


def test_openexr_is_read_where_it_is_installed(tmp_path: Path) -> None:
    """One channel of any name, or that named Z, of 32 bits or 16; its own library writes it."""
    openexr = pytest.importorskip("OpenEXR")

    def exr(**channels: NDArray) -> bytes:
        openexr.File({"compression": openexr.ZIP_COMPRESSION}, channels).write(str(tmp_path / "it.exr"))
        return (tmp_path / "it.exr").read_bytes()

    whole = exr(Y=METERS)
    np.testing.assert_array_equal(decoded(whole), METERS)
    np.testing.assert_array_equal(decoded(exr(R=0 * METERS, Z=METERS)), METERS)
    np.testing.assert_allclose(decoded(exr(V=METERS.astype(np.float16))), METERS, rtol=1e-3)
    for data, problem in ((exr(R=METERS, A=METERS), "one named Z, got A, R"), (whole[:90], "a damaged depth map")):
        with pytest.raises(DecodeError, match=problem):
            decoded(data)


def test_openexr_says_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(DecodeError, match=r"selfsup\[exr\]'; or save it as .depth.tif"):
        decoded(b"\x76\x2f\x31\x01" + bytes(60))


def test_what_is_unknown_is_not_a_number_and_in_disparities_too() -> None:
    values = np.array([[0.0, -1.0, np.nan], [np.inf, 2.0, 4.0]])
    assert np.isnan(decoded(npy(values))).tolist() == [[True] * 3, [True, False, False]]
    view = DepthMap(knobs=DepthInput(disparity=True), crop=Center(size=1))
    box = np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    assert DEPTH.load(npy(values), box, [view], DEPTH.Reading())[0].tolist() == [[[0.5]]]
    assert np.isnan(DEPTH.load(npy(values), box - [1, 0, 0, 0, 0], [view], DEPTH.Reading())[0]).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG", npy(np.zeros(3)), npy(np.array(["a"])), png(np.zeros((2, 2, 3), np.uint8)), tiff(METERS)[:90]],
)
def test_what_is_no_depth_map(data: bytes) -> None:
    with pytest.raises(DecodeError):
        DEPTH.measure(data, DEPTH.Reading())


def by_numpy(values: NDArray, share: float) -> NDArray:
    """Standardize as the authors do: sorted, cut off by int() at the ends, unbiased variance, unknown at the mean."""
    known = np.sort(values[~np.isnan(values)])
    middle = known[int(share * len(known)) : int((1 - share) * len(known))]
    return np.where(np.isnan(values), 0.0, (values - middle.mean()) / np.sqrt(middle.var(ddof=1) + 1e-6))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_truncated_standardization_is_that_of_the_authors(share: float) -> None:
    draw = np.random.default_rng(0)
    maps = draw.lognormal(size=(4, 1, 9, 11))
    maps[1, 0, :2], maps[2, 0, 3:] = np.nan, np.nan
    ours = standardized(torch.from_numpy(maps), share).numpy()
    np.testing.assert_allclose(ours, [[by_numpy(map_[0], share)] for map_ in maps], rtol=1e-10)
    assert standardized(torch.full((1, 1, 4, 4), torch.nan), share).eq(0).all()


def test_depth_is_indexed_beside_images_whose_digest_stays(tmp_path: Path) -> None:
    data = placed(tmp_path / "both", METERS)
    assert (list(data.fields), list(data.beside), data.annotations) == (["image"], ["depth"], ("depth",))
    assert shards.check(data.root) == []
    head = tmp_path / "both" / "manifest.json"
    content = json.loads(head.read_text())
    del content["beside"], content["readings"]  # as earlier versions wrote it
    head.write_text(json.dumps(content))
    assert manifest.load(data.root).digest == data.digest


def test_depth_alone_is_learned_from_like_images(tmp_path: Path) -> None:
    stored = png(np.round(1000 * METERS).astype(np.uint16))
    samples = (AnnotatedSample(str(n), {"depth.png": stored}, n % 2) for n in range(8))
    data = pack_annotated(samples, tmp_path / "data", classes=["a", "b"])
    assert (list(data.fields), list(data.beside)) == (["depth"], [])
    spec = {"name": "d", "method": "mae", "data": {"train": data.root, "val": data.root}, "input": {"depth": {}}}
    spec |= {"backbone": BACKBONE, "train": {"duration": {"steps": 2}, "batch": 8}, "evals": {"knn": {"k": 3}}}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    runs = plan(read(path), tmp_path / "home")
    assert [run.label for run in runs] == ["raw depth maps", "random encoder", "mae"]
    assert "32 rows x 32 columns" in cost.describe([runs])
    assert runs[-1].size.channels == 1


def test_a_trained_encoder_is_given_depth_maps() -> None:
    values = torch.from_numpy(METERS)[None, None]
    view = DepthMap(knobs=KNOBS, crop=Center(size=SIDE))
    expected = METERS[1::2, 9:41:2]  # the middle of 32 by 48, a pixel of every two
    assert DEPTH.fit(values, view, DEPTH.Reading())[0, ..., 0].numpy().tolist() == expected.tolist()
    assert DEPTH.picture(standardized(values, 0.1), DEPTH.Reading()).shape == (1, HEIGHT, WIDTH, 3)
