"""Voxels by NumPy's histograms: where they lie beside points, in a stream and in a whole run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import npy
from outsiders import refused

from selfsup import modality
from selfsup.modality import DecodeError
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.clouds.poses import matrices
from selfsup.pipelines.modalities.points import PointsInput, PointsReading
from selfsup.pipelines.modalities.voxels import VoxelsInput, VoxelsReading
from selfsup.views import Crop, Views

POINTS: Any = modality.load("points")
VOXELS: Any = modality.load("voxels")
XYZ = np.random.default_rng(0).normal(size=(300, 3)) + np.array([5, 0, -3])
CHANGED = {"points": 200, "crop_min": 0.5, "rotation": "any", "scale": 1.4, "translation": 0.2, "flip": True}
TWO = Views((Crop(), Crop()))


def view(**knobs: Any) -> Any:
    return VOXELS.views(Views((Crop(),)), (), VoxelsInput(**(CHANGED | {"side": 16} | knobs))).specs[0]


def counted(xyz: np.ndarray, side: int = 16, reach: float = 1.25) -> np.ndarray:
    return np.histogramdd(xyz, side, [(-reach, reach)] * 3)[0] > 0


def test_a_view_is_where_the_points_of_the_same_part_and_pose_lie() -> None:
    same = POINTS.views(Views((Crop(),)), (), PointsInput(**CHANGED)).specs[0]
    for seed in range(20):
        draws = np.random.default_rng(seed).random((1, VOXELS.place_draws))
        own, of_points = (
            VOXELS.place(view(), np.full((1, 3), 300), draws),
            POINTS.place(same, np.full((1, 1), 300), draws),
        )
        [[filled], [cloud]] = (
            VOXELS.load(npy(XYZ), own, [view()], VoxelsReading()),
            POINTS.load(npy(XYZ), of_points, [same], PointsReading()),
        )
        assert (filled.shape, filled.dtype) == ((16, 16, 16, 1), np.uint8)
        np.testing.assert_array_equal(filled[..., 0] > 0, counted(cloud.astype(np.float64)))
        assert 0 < filled.sum() <= 200
        followed = VOXELS.follow(
            view(), np.full((1, 3), 300), draws[:, ::-1], POINTS.axes, np.append(of_points, [[300]], axis=1)
        )
        np.testing.assert_array_equal(followed, own)
        matrix, _ = matrices(own[0, 7:19])
        assert abs(np.linalg.det(matrix)) <= 1.4**3


def test_a_grid_is_about_the_middle_and_reaches_so_far() -> None:
    """The corners of an octahedron are in the middle of its sides, wherever it lies and however large it is."""
    corners, extents = np.concatenate([np.eye(3), -np.eye(3)]), np.full((1, 3), 6)
    whole, narrow = (VOXELS.whole((), 1.0, VoxelsInput(side=4, reach=reach)) for reach in (1.01, 0.5))
    box = VOXELS.place(whole, extents, np.empty((1, 0)))
    [filled] = VOXELS.load(npy(7 * corners + 2), box, [whole], VoxelsReading())
    places = [[0, 2, 2], [2, 0, 2], [2, 2, 0], [2, 2, 3], [2, 3, 2], [3, 2, 2]]
    assert np.argwhere(filled[..., 0]).tolist() == places
    assert not VOXELS.load(npy(corners), box, [narrow], VoxelsReading())[0].any(), "all lie beyond it"
    with pytest.raises(DecodeError):
        VOXELS.load(npy(corners)[:-9], box, [whole], VoxelsReading())


def test_a_stream_reads_both_forms_of_a_cloud_from_one_member(tmp_path: Path) -> None:
    files = [npy(np.random.default_rng(number).normal(size=(60 + number, 3))) for number in range(4)]
    data = pack_annotated((AnnotatedSample(str(n), {"points.npy": file}) for n, file in enumerate(files)), tmp_path)
    assert (list(data.fields), list(data.beside)) == (["points"], [])
    knobs = PointsInput(**CHANGED), VoxelsInput(**CHANGED, side=16)
    clouds, grids = (kind.views(TWO, (), own).specs for kind, own in zip((POINTS, VOXELS), knobs, strict=True))
    order = SampleOrder(samples=4, batch=4, seed=0, lanes=1, chunk=1, mix=1)
    [row] = SampleStream(data, order, Views((*clouds, *grids)), 1).rows([0], 0, 1, threads=1, memory=2**24)
    assert not len(row["bad"])
    assert len({tuple(row[f"box{number}"][0, -13:-1].tolist()) for number in range(4)}) == 4, "each in its own pose"
    for number, view_ in ((2, grids[0]), (3, grids[1])):
        for place, index in enumerate(row["index"]):
            box = row[f"box{number}"][place].astype(np.float64)
            assert box[-3:].tolist() == [60 + index] * 3
            [expected] = VOXELS.load(files[index], box[None], [view_], VoxelsReading())
            assert (row[f"view{number}"][place] != expected).mean() < 0.01, "boxes are in single precision here"


def test_a_picture_is_seen_from_the_front() -> None:
    grid = torch.zeros(1, 1, 4, 4, 4)
    grid[0, 0, 0, 1, 3] = grid[0, 0, 3, 2, 0] = grid[0, 0, 3, 0, 0] = 1
    [picture] = VOXELS.picture(grid, None)
    assert np.argwhere((picture != 255).any(2)).tolist() == [[0, 0], [3, 3]]
    assert picture[3, 3].sum() < picture[0, 0].sum(), "what is nearest hides all else, and is dark"


def test_what_specs_say_of_voxels(tmp_path: Path) -> None:
    (spec := tmp_path / "in" / "spec.yaml").parent.mkdir()
    sections = "data: {train: /data}\ntrain: {duration: {steps: 1}}\ninput: {points: {}, voxels: {}}"
    spec.write_text(f"name: s\nmethod: moco\n{sections}\n")
    assert "the backbone of a run reads one kind of data, not points and voxels" in refused(spec)
    spec.write_text(f"name: s\nmethod: depthcontrast\n{sections}\n")
    assert "do not divide" in refused(spec, "towers.voxels.patch_size=7")
