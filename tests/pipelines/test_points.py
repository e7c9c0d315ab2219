"""Clouds by trimesh, NumPy and SciPy: formats, views and their poses, statistics, packing and whole runs."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml
from arrays import npy, npz
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.errors import DataError, SpecError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo, load
from selfsup.modality import DecodeError
from selfsup.modality import load as load_modality
from selfsup.pipelines.data import scenes, shards
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.clouds.decode import decode
from selfsup.pipelines.modalities.clouds.poses import matrices, rotations
from selfsup.pipelines.modalities.points import CloudView, Points, PointsInput, PointsReading
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.sections import Backbone, InputShape
from selfsup.spec import read
from selfsup.views import Crop, Views

POINTS = load_modality("points")
assert isinstance(POINTS, Points)
DRAW = np.random.default_rng(0)
XYZ = DRAW.normal(size=(300, 3)).astype(np.float32) + np.float32([5, 0, -3])
NORMALS = (lambda vectors: vectors / np.linalg.norm(vectors, axis=1, keepdims=True))(DRAW.normal(size=(300, 3)))
COLORS = DRAW.integers(0, 256, (300, 3), np.uint8)
BARE = PointsReading(channels=3)
STILL = {"scale": 1.0, "translation": 0.0}
BACKBONE = {"name": "vit_tiny_patch16_224", "patch_size": 8, "width": 32, "depth": 1, "heads": 2, "pool": "mean"}


def ply(order: str, kinds: str = "d", after: str = "", tail: bytes = b"") -> bytes:
    """Return a file of XYZ and COLORS with a property that is skipped, written value by value."""
    names = {"d": "double", "f": "float"}
    properties = [f"property {names[kinds]} {axis}" for axis in "xyz"]
    properties += ["property ushort age", *(f"property uchar {color}" for color in ("red", "green", "blue"))]
    lines = ["ply", f"format {order} 1.0", "comment by hand", f"element vertex {len(XYZ)}"]
    head = "\n".join([*lines, *properties, *filter(None, [after]), "end_header", ""])
    rows = [(*xyz, 7, *color) for xyz, color in zip(XYZ.tolist(), COLORS.tolist(), strict=True)]
    if order == "ascii":
        return (head + "\n".join(" ".join(map(repr, row)) for row in rows) + "\n").encode() + tail
    sign = ">" if "big" in order else "<"
    return head.encode() + b"".join(struct.pack(f"{sign}3{kinds}H3B", *row) for row in rows) + tail


def view(**knobs: object) -> CloudView:
    return CloudView(knobs=PointsInput(points=64, **(STILL | knobs)))


def boxed(of: CloudView, seed: int = 0, number: int = len(XYZ)) -> np.ndarray:
    draws = np.random.default_rng(seed).random((1, POINTS.place_draws), np.float32)
    return POINTS.place(of, np.array([[number]]), draws)


def seen(data: bytes, of: CloudView, seed: int = 0, reading: PointsReading = BARE) -> np.ndarray:
    return POINTS.load(data, boxed(of, seed), [of], reading)[0]


def unit(xyz: np.ndarray) -> np.ndarray:
    middle = xyz - xyz.astype(np.float64).mean(0)
    return middle / np.linalg.norm(middle, axis=1).max()


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_clouds_of_trimesh_are_read(encoding: str) -> None:
    mesh = trimesh.creation.cone(1, 2)
    mesh.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (len(mesh.vertices), 4), np.uint8)
    data = trimesh.exchange.ply.export_ply(mesh, encoding=encoding, vertex_normal=True)
    cloud = decode(data)
    assert cloud.has_normals
    assert POINTS.extent(data, BARE) == (len(mesh.vertices),)
    parts = [mesh.vertices, mesh.vertex_normals, mesh.visual.vertex_colors[:, :3] / 255]
    np.testing.assert_allclose(cloud.values, np.concatenate(parts, axis=1), atol=1e-6)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("kinds", ["f", "d"])
def test_a_file_is_read_as_trimesh_reads_it(order: str, kinds: str) -> None:
    data = ply(order, kinds, after="element face 1\nproperty list uchar int vertex_indices", tail=b"3 0 1 2\n")
    cloud = decode(data)
    theirs = trimesh.exchange.ply.load_ply(io.BytesIO(ply(order, kinds)))
    np.testing.assert_allclose(cloud.values[:, :3], theirs["vertices"], rtol=1e-6)
    np.testing.assert_array_equal(cloud.values[:, :3].astype(np.float32), XYZ)
    np.testing.assert_allclose(cloud.values[:, 3:], COLORS / 255, rtol=1e-6)
    assert decode(data.replace(b"\n", b"\r\n", data[: data.index(b"end_header")].count(b"\n") + 1)).values.shape


def test_arrays_are_read() -> None:
    np.testing.assert_array_equal(decode(npy(XYZ)).values, XYZ)
    np.testing.assert_array_equal(decode(npz(anything=XYZ)).values, XYZ)
    cloud = decode(npz(colors=COLORS, normals=NORMALS, points=XYZ))
    np.testing.assert_allclose(cloud.values, np.concatenate([XYZ, NORMALS, COLORS / 255], axis=1))
    assert cloud.has_normals


def test_a_depth_map_is_lifted_to_where_its_camera_saw_the_points() -> None:
    """A rendered scene by its own camera: points of the floor are at height 0, those of the wall all as far along."""
    members = scenes.sample("val", 0).members
    depth, seg = (np.asarray(Image.open(io.BytesIO(members[f"{name}.png"]))) for name in ("depth", "seg"))
    cameras = json.loads(members["json"])["cameras"]
    data = npz(depth=depth / 1000, intrinsics=np.array(cameras["intrinsics"]))
    cloud = decode(data)
    assert POINTS.extent(data, BARE) == (depth.size,) == (len(cloud.values),)
    pose = np.array(cameras["left"])
    places = (cloud.values - pose[:3, 3]) @ pose[:3, :3]  # a rotation is undone by its transpose
    surface = np.array(scenes.SURFACES)[seg.ravel()]
    np.testing.assert_allclose(places[surface == "floor", 1], 0, atol=2e-3)
    assert np.ptp(places[surface == "wall", 2]) < 2e-3
    hidden = npz(depth=np.where(seg == 0, np.nan, depth / 1000), intrinsics=np.array(cameras["intrinsics"]))
    np.testing.assert_array_equal(decode(hidden).values, cloud.values[seg.ravel() != 0])


HEAD = b"ply\nformat ascii 1.0\nelement vertex 2\n"
FLAT = b"property float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"ply", b"plywood\n", HEAD, HEAD + FLAT, HEAD + FLAT + b"1 2 3 4 5", HEAD + FLAT + b"1 2 3 4 5 six",
        HEAD + b"property list uchar int x\n" + FLAT, HEAD + b"property float x\n" + FLAT, HEAD + b"end_header\n1 2\n",
        HEAD.replace(b"2", b"-2") + FLAT, HEAD.replace(b"2", b"0") + FLAT, HEAD.replace(b"vertex", b"face") + FLAT,
        HEAD.replace(b"2", b"9" * 30) + FLAT, HEAD.replace(b"ascii", b"odd") + FLAT, HEAD + FLAT.replace(b"x", b"u"),
        ply("binary_big_endian")[:-200], npy(XYZ)[:-9], npy(XYZ[:, :2]), npy(XYZ[:0]), npy(XYZ[0]), npy(XYZ[None]),
        npy(np.full((4, 3), np.nan)), npy(np.array([["a"] * 3])), npz(points=XYZ, faces=XYZ), npz(a=XYZ)[:80],
        npz(depth=XYZ, intrinsics=np.zeros((3, 3))), npz(depth=XYZ, intrinsics=np.eye(4)),
        npz(depth=0 * XYZ, intrinsics=np.eye(3)),
    ],
)  # fmt: skip
def test_what_is_no_cloud_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        POINTS.check(data, PointsReading())
    with pytest.raises(DecodeError):
        POINTS.load(data, boxed(view()), [view()], BARE)


def test_a_view_is_points_of_the_unit_ball_and_the_same_for_the_same_draws() -> None:
    shown = seen(npy(XYZ), view())
    apart, number = cKDTree(unit(XYZ)).query(shown)
    assert shown.shape == (64, 3)
    assert shown.dtype == np.float32
    assert apart.max() < 1e-6
    assert len(set(number)) == 64
    np.testing.assert_array_equal(shown, seen(npy(XYZ), view()))
    assert (shown != seen(npy(XYZ), view(), seed=1)).any()
    few = seen(npy(XYZ[:10]), view())
    assert sorted(np.unique(few, axis=0, return_counts=True)[1]) == [6] * 6 + [7] * 4
    whole = CloudView(knobs=PointsInput(points=64), is_random=False)
    same = [POINTS.load(npy(XYZ), boxed(whole, seed), [whole], BARE)[0] for seed in (0, 1)]
    np.testing.assert_array_equal(*same)
    batch = torch.from_numpy(np.stack([XYZ, 3 * XYZ + 1])).mT
    np.testing.assert_allclose(POINTS.fit(batch, whole, BARE), np.stack([same[0]] * 2), atol=1e-6)
    with pytest.raises(SpecError, match="expected clouds"):
        POINTS.fit(batch[:, :2], whole, BARE)


@pytest.mark.parametrize("about", ["none", "x", "y", "z", "any"])
def test_rotations_are_those_of_scipy(about: str) -> None:
    draws = np.random.default_rng(0).random((4000, 3))
    made = rotations(about, draws)
    if about == "any":
        np.testing.assert_allclose(made @ made.transpose(0, 2, 1), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(made), 1)
        angle = Rotation.from_matrix(made).magnitude()
        levels = np.linspace(0, np.pi, 9)[1:-1]  # uniform rotations turn by angles of density (1 - cos) / pi
        share = (angle[:, None] < levels).mean(0)
        np.testing.assert_allclose(share, (levels - np.sin(levels)) / np.pi, atol=0.03)
        assert abs(made.mean(0)).max() < 0.04
    else:
        turns = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "none": [0, 0, 0]}[about]
        expected = Rotation.from_rotvec(2 * np.pi * draws[:, :1] * turns).as_matrix()
        np.testing.assert_allclose(made, expected, atol=1e-12)


def test_a_box_says_where_in_the_cloud_a_view_lies() -> None:
    """Its part is the points nearest to one; each point that it shows is found again by its pose."""
    of = view(crop_min=0.4, rotation="any", scale=2.0, translation=0.5, flip=True)
    poses = []
    for seed in range(40):
        [box] = boxed(of, seed)
        shown = seen(npy(XYZ), of, seed)
        matrix, shift = matrices(box[3:15])
        back = (shown - shift) @ np.linalg.inv(matrix).T
        apart, number = cKDTree(unit(XYZ)).query(back)
        assert apart.max() < 1e-5
        near = cKDTree(unit(XYZ)).query(unit(XYZ)[int(box[0])], int(box[1]))[1]
        assert {*number} <= {*near}
        assert 0.4 * 300 - 1 <= box[1] <= 300
        poses.append((matrix, shift))
    matrix, shift = (np.stack(part) for part in zip(*poses, strict=True))
    stretched = np.linalg.norm(matrix, axis=2)  # of each axis of the view
    assert stretched.min() < 0.6 < 1.8 < stretched.max() <= 2
    assert stretched.min() >= 0.5
    assert {*np.sign(np.linalg.det(matrix))} == {-1, 1}
    assert 0.4 < abs(shift).max() <= 0.5
    again = POINTS.load(npy(XYZ), boxed(of, 3).repeat(2, axis=0), [of, of], BARE)
    np.testing.assert_array_equal(*again)


def test_normals_stay_at_right_angles_to_surfaces() -> None:
    """Of a plane: whatever turns and stretches its points."""
    flat = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0]
    data = npz(points=flat, normals=np.tile([0.0, 0, 2], (100, 1)), colors=COLORS[:100])
    reading = PointsReading(channels=9, normals=True)
    of = view(rotation="any", scale=3.0, translation=0.3, flip=True)
    shown = POINTS.load(data, boxed(of, number=100), [of], reading)[0]
    xyz, normals = shown[:, :3] - shown[:1, :3], shown[:, 3:6]
    np.testing.assert_allclose((xyz * normals).sum(1), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
    with pytest.raises(DecodeError, match="unlike others"):
        POINTS.load(npy(np.zeros((4, 9))), boxed(of), [of], reading)


def test_jitter_is_noise_on_coordinates() -> None:
    of, raw = view(jitter=0.02), np.zeros((64, 4), np.float32)
    draws = np.random.default_rng(0).random((100, 2), np.float32)
    noise = np.stack([POINTS.change(raw, of, None, own) for own in draws])
    assert noise[..., :3].std() == pytest.approx(0.02, rel=0.02)
    assert abs(noise[..., :3]).max() <= 0.1
    assert (noise[..., 3] == 0).all()
    np.testing.assert_array_equal(POINTS.change(raw, of, None, draws[7]), noise[7])
    assert POINTS.change_draws(view()) == POINTS.change_draws(CloudView(knobs=of.knobs, is_random=False)) == 0


def test_what_is_no_coordinate_is_normalized_by_its_own_moments() -> None:
    data = [
        npz(points=XYZ, normals=NORMALS, colors=COLORS),
        npz(points=XYZ[:9], normals=NORMALS[:9], colors=COLORS[:9]),
    ]
    stats = POINTS.statistics([POINTS.measure(one, PointsReading()) for one in data], PointsReading())
    shares = COLORS / 255
    first, second = ((shares**power).mean(0) / 2 + (shares[:9] ** power).mean(0) / 2 for power in (1, 2))
    assert stats.normals
    np.testing.assert_allclose(stats.mean, [*[0] * 6, *first], atol=1e-5)
    np.testing.assert_allclose(stats.std, [*[1] * 6, *np.sqrt(second - first**2)], atol=1e-5)
    values = torch.tensor([*[0.5] * 6, *stats.mean[6:]])[None, :, None]
    torch.testing.assert_close(POINTS.normalize(values, view(), stats)[0, :, 0], torch.tensor([*[0.5] * 6, 0, 0, 0]))
    with pytest.raises(DataError, match="points of 3 and 4 values"):
        POINTS.statistics([POINTS.measure(npy(np.ones((5, c))), PointsReading()) for c in (3, 4)], PointsReading())


def test_a_picture_is_seen_from_the_front() -> None:
    cloud = torch.tensor([[-1.0, 0, 0.9], [0.9, 0, -1], [0, 0.5, 0], [0, -0.5, 0], [0, 0, 0]]).mT[None]
    [picture] = POINTS.picture(cloud, None)
    marked = (picture != 255).any(2)
    assert np.argwhere(marked).tolist() == [[3, 0], [32, 32], [63, 60]]
    assert picture[32, 32].sum() < picture[3, 0].sum(), "what is nearest hides all else, and is dark"


@pytest.mark.parametrize("name", ["mae", "moco", "mocov3", "sela", "clusterfit", "feature_distillation"])
def test_objectives_of_any_modality_take_clouds(name: str) -> None:
    method, supervised, info = load(name), load("supervised"), TrainInfo(8, 3, 4, 2, channels=4, sizes=(128,))
    hyper = method.Hyper(**({"target": "points"} if name == "mae" else {}))
    knobs, shape = PointsInput(points=64), InputShape(4, (128,), in_groups=True)
    views = POINTS.views(method.views(hyper), (128,), knobs)
    with torch.device("meta"):
        trunk = encoder.build(Backbone(**BACKBONE), method.initialize, shape)
        if method.lesson(hyper):
            teacher = encoder.build(Backbone(**BACKBONE), shape=shape)
            info = info._replace(teacher=Frozen(supervised(supervised.Hyper(), {"points": teacher}, info), trunk.patch))
        loss = method(hyper, {"points": trunk}, info)(blank_batch(views, trunk.patch, 8, "meta", channels=4)).loss
        loss.backward()
    assert loss.shape == ()
    assert method.modalities is None
    assert POINTS.views(Views((Crop(), Crop(of=0))), (128,), knobs).specs[1].of == 0


@pytest.fixture(scope="module")
def solids(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Balls and rods in three formats, packed."""
    root, draw = tmp_path_factory.mktemp("points"), np.random.default_rng(0)
    for number in range(48):
        xyz = draw.normal(size=(80, 3)) * ((1, 1, 1), (1, 0.1, 0.1))[number % 2]
        path = root / "in" / ("ball", "rod")[number % 2] / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix, data = [
            ("points.npy", npy(xyz)),
            ("points.npz", npz(points=xyz)),
            ("PLY", trimesh.exchange.ply.export_ply(trimesh.PointCloud(xyz))),
        ][number // 2 % 3]
        path.with_suffix(f".{suffix}").write_bytes(data)
    return pack(root / "in", root / "out", shard_size=20).manifest


def test_clouds_are_packed_as_they_are(solids: Manifest) -> None:
    assert (solids.num_samples, solids.classes, [*solids.fields]) == (48, ("ball", "rod"), ["points"])
    assert solids.members == ("cls", "ply", "points.npy", "points.npz")
    assert shards.check(solids.root) == []
    assert solids.fields["points"].mean == (0, 0, 0)


SMALL, DECODER = {"points": 32, "rotation": "any", "crop_min": 0.5}, {"decoder_depth": 1, "decoder_width": 32}
WHOLE = {  # kinds of data and knobs of methods
    "mae": ({"points": SMALL}, DECODER | {"decoder_heads": 2, "target": "points"}),
    "mae on voxels": ({"voxels": SMALL | {"side": 16}}, DECODER | {"decoder_heads": 2}),
    "depthcontrast": ({"points": SMALL, "voxels": SMALL | {"side": 16}}, {"queue": 64, "dim": 16}),
    "moco": ({"points": SMALL}, {}),
    "pointcontrast": ({"points": SMALL}, {}),
}
QUICK = "mae", "depthcontrast"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("title", [pytest.param(own, marks=[pytest.mark.slow] * (own not in QUICK)) for own in WHOLE])
def test_a_whole_run_on_clouds(title: str, solids: Manifest, tmp_path: Path) -> None:
    (kinds, hyper), method = WHOLE[title], title.partition(" ")[0]
    spec = {
        "name": "solids",
        "data": {"train": solids.root, "val": solids.root},
        "input": kinds,
        "method": method,
        "hyper": hyper,
        "backbone": BACKBONE,
        "optim": {"lr": 1e-3, "lr_rule": "none"},
        "train": {"duration": {"steps": 4}, "batch": 16, "log_every": 2},
        "evals": {"knn": {"k": 3}, "linear": {"epochs": 2}, "attentive": {"epochs": 1}},
        "resources": {"workers": 1},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    planned = plan(read(tmp_path / "spec.yaml"), tmp_path / "home")
    raw = "raw voxels" if "points" not in kinds else "raw clouds"
    assert [run.label for run in planned] == [raw, "random encoder", method]
    for run in planned:
        perform(run)
        assert 0 <= run.probes["attentive"].result()["top1"] <= 100
    assert planned[-1].probes["knn"].result()["top1"] > 70, "balls and rods can be told"
    assert [stage.kind for stage in planned[-1].drawings] == ["pictures"] * (method == "mae")
