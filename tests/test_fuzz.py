"""Whatever a file or an override says, it is a valid spec or one clear error; nothing is written before it is known."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mutations import Case, records, specs, tables, torn
from small import of_images
from tiny import BACKBONE

from selfsup import encoder, saved
from selfsup.errors import CheckpointError, DataError, SpecError
from selfsup.knob import knob_lines
from selfsup.pipelines import planning
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.reader import SampleReader
from selfsup.spec import Backbone, read, spec_type
from selfsup.sweeps.spec import outline, sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.sweeps.spec.search import Search

ROOT = Path(__file__).parent.parent
PLACES = re.compile(r"-s |[^:\n]+(:\d+:\d+)?: ")  # an override; a file, with line and column where it is one of ours
KNOBS = [*(line.path for line in knob_lines(spec_type("mae"))), *(f"search.{name}" for name in Search.model_fields)]
KNOBS += ["seeds", "published", "published.source", "ablate.hyper.crop_min", "grid", "expected.default", "studies"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, make: Any) -> Iterator[list[Path]]:
    """A copy of every spec and sweep that is shipped, on 16,384 samples, beside what is no spec; an empty home."""
    top = tmp_path_factory.mktemp("fuzz")
    folder = make(top, number=20).root
    copies = []
    for path in sorted([*ROOT.glob("pipelines/*/*.yaml"), *ROOT.glob("sweeps/*.yaml")]):
        copies.append(top / path.relative_to(ROOT))
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        copies[-1].write_text(re.sub(r"(bundled://|/data/)?\w+/(train|val)(?=[,}])", folder, path.read_text()))
    for beside in {path.parent for path in copies}:
        (beside / "loop.yaml").symlink_to("loop.yaml")
        (beside / "binary").write_bytes(bytes(range(256)))
        (beside / "empty.yaml").touch()
        os.mkfifo(beside / "fifo")
    (top / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "load", lambda *told: replace(load(*told), num_samples=16384, num_labelled=16384))
        yield copies


def planned(path: Path, overrides: tuple[str, ...], home: Path) -> None:
    found = sweepfile.read(path, overrides)
    if found.kind == "plain":
        assert [run.params() for run in planning.plan(read(path, overrides), home) if run.steps]
    elif found.kind == "search":
        outline.describe_search(found, home)
    else:
        outline.describe(*expand(found, home))


def tell(seed: int, path: Path, case: Case, home: Path) -> None:
    """Fail where a case ends otherwise than in a plan or in an error that says where."""
    mutated = path.with_name("mutated.yaml")
    mutated.write_bytes(case.text)
    message = ""
    try:
        planned(mutated, case.overrides, home)
    except (SpecError, DataError) as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"seed {seed}, {path}, -s {case.overrides}:\n{case.text[:2000]!r}") from error
    assert not message or PLACES.match(message), f"seed {seed}, {path}: no place: {message}"
    assert "\0" not in message.encode().decode(), f"seed {seed}, {path}: not to be printed: {message!r}"
    assert {left.name for left in home.iterdir()} <= {"cache"}, f"seed {seed}, {path}: something was written"


def fuzz(files: list[Path], seeds: range) -> None:
    for seed in seeds:
        path = files[seed % len(files)]
        tell(seed, path, specs(path.read_text(), seed, KNOBS), files[0].parents[2] / "home")


def test_specs_and_overrides(files: list[Path]) -> None:
    fuzz(files, range(200))


@pytest.mark.slow
def test_thousands_of_specs_and_overrides(files: list[Path]) -> None:
    fuzz(files, range(200, 5000))


def test_what_may_be_null_is_taken(files: list[Path]) -> None:
    """For every method, what an extended file says can be taken back; a section without axes is none."""
    photos = next(path for path in files if path.match("photos/mae.yaml")).parent
    whole = (
        "published.",
        "optim.warmup.",
        "train.duration.",
        "augment.",
        "start.",
        "teacher.",
        "towers.",
        "evals.every.",
    )
    sizes = "backbone.patch_size"  # not every crop divides into the patches of the encoder's name
    for method in of_images():  # the others have no such recipe
        lines = [line.path for line in knob_lines(spec_type(method)) if line.type.endswith("| null")]
        shared = () if method == "mae" else ("evals.",)  # the same of every method
        for path in lines:
            if not path.startswith((*whole, *shared, sizes)):
                read(photos / f"{method}.yaml", ["evals.knn=null", "evals.linear=null", f"{path}=null"])
    for section in ("ablate", "grid", "expected", "studies", "search"):
        assert sweepfile.read(photos / "mae.yaml", [f"{section}=null"]).kind == "plain"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make: Any) -> dict[str, bytes]:
    """The files of a small data set."""
    folder = Path(make(tmp_path_factory.mktemp("shards"), number=20, shard_size=5).root)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifests(shards: dict[str, bytes], folder: Path, seeds: range) -> None:
    """A manifest with one file changed is refused at once, or as soon as its samples are read, or says the same."""
    names = ("manifest.json", "manifest-shards.parquet", "manifest-samples.npy")
    for seed in seeds:
        name, draw = names[seed % 3], Random(seed)
        for file, data in shards.items():
            (folder / file).write_bytes(data)
        if name == "manifest.json":
            (folder / name).write_bytes(records(shards[name].decode(), seed))
        elif name == "manifest-shards.parquet" and draw.random() < 0.6:
            pq.write_table(tables(pq.read_table(folder / name), seed), folder / name)
        else:
            (folder / name).write_bytes(torn(shards[name], draw))
        message = str(folder)
        try:
            manifest = load(str(folder))
            assert len(SampleReader(manifest, "image").read(np.arange(manifest.num_samples))) == 20
        except DataError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {name}: {(folder / name).read_bytes()[:2000]!r}") from error
        assert "/" in message, f"seed {seed}: {name}: no place: {message}"


def test_manifests(shards: dict[str, bytes], tmp_path: Path) -> None:
    manifests(shards, tmp_path, range(90))


@pytest.mark.slow
def test_thousands_of_manifests(shards: dict[str, bytes], tmp_path: Path) -> None:
    manifests(shards, tmp_path, range(90, 3000))


def test_encoders_and_given_weights(tmp_path: Path) -> None:
    """Cut, changed, or something else: safetensors that an encoder is read from, and files for backbone.weights."""
    backbone, path, draw = Backbone(**BACKBONE), tmp_path / "encoder.safetensors", Random(0)
    saved.save_encoder(encoder.build(backbone), backbone, path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    cuts = [whole[:size] for size in (0, 1, 7, 8, 9, header, 8 + header, len(whole) - 1)]
    heads = [records(whole[8 : 8 + header].decode(), seed) for seed in range(60)]
    changed = [len(head).to_bytes(8, "little") + head + whole[8 + header :] for head in heads]
    for data in [*cuts, *changed, torn(whole, draw), whole + b"x", b"\xff" * 8 + whole]:
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):
            saved.restore_encoder(path)
        with contextlib.suppress(SpecError):
            encoder.build(backbone.model_copy(update={"weights": str(path)}))
    for number, held in enumerate([None, 1, "x", [], {}, [torch.zeros(1)], {"state_dict": None}, {"model": {"a": 1}}]):
        torch.save(held, tmp_path / f"{number}.pth")
        with pytest.raises(SpecError, match=r"backbone\.weights"):
            encoder.build(backbone.model_copy(update={"weights": str(tmp_path / f"{number}.pth")}))
