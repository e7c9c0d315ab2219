"""Which runs one stream can feed: by the pixels that it makes, in the order of a sweep, and as a plan says it."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import BACKBONE

from selfsup.masks import RandomMask
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.sharing import group_by_stream, sort_by_stream, stream_key
from selfsup.pipelines.summary import sharing, summarize
from selfsup.spec import read
from selfsup.views import Center, Crop, Views

OTHER: dict[str, Any] = {  # a value that is not the default, for every field of a crop
    "size": 24,
    "scale": (0.5, 0.9),
    "ratio": (1.0, 2.0),
    "flip": 1.0,
    "resample": "bilinear",
    "jitter": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.2,
    "gray": 0.5,
    "gray_first": True,
    "blur": 0.5,
    "blur_sigma": (1.0, 2.0),
    "solarize": 0.5,
    "cells": 2,
    "mask": RandomMask(0.5),
    "of": 0,
    "share": 0.5,
    "rounded": True,
    "squashed": True,
    "rand_augment": (9, 0.5),
}
SPEC: dict[str, Any] = {
    "name": "tiny",
    "method": "simclr",
    "backbone": BACKBONE,
    "train": {"duration": {"steps": 40}, "batch": 16},
    "stream": {"lanes": 4},
    "baselines": False,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Manifest:
    return make(tmp_path_factory.mktemp("set"), number=64)


@pytest.fixture
def planned(told: Manifest, tmp_path: Path) -> Callable[..., tuple[PlannedRun, ...]]:
    """(section={name: value}, ...) -> the runs of the spec with these changes."""

    def planned(**changes: Any) -> tuple[PlannedRun, ...]:
        spec = SPEC | {"data": {"train": told.root}}
        for section, value in changes.items():
            spec[section] = spec.get(section, {}) | value if isinstance(value, dict) else value
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        return plan(read(tmp_path / "spec.yaml"), tmp_path / "home")

    return planned


def first_step(told: Manifest, crop: Crop | Center) -> Columns:
    stream = SampleStream(told, SampleOrder(samples=64, batch=16, seed=0, lanes=4), Views((Crop(size=16), crop)), 1)
    (row,) = stream.rows(range(4), 0, 1, threads=1, memory=2**24)
    return row


@pytest.mark.parametrize(
    ("crop", "name"),
    [(crop, field.name) for crop in (Crop(size=16), Center(size=16, share=0.9)) for field in fields(crop)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_geometry_is_what_the_pixels_of_a_stream_depend_on(told: Manifest, crop: Crop | Center, name: str) -> None:
    other = replace(crop, **{name: OTHER[name]})
    same = np.array_equal(first_step(told, crop)["view1"], first_step(told, other)["view1"])
    assert (crop.geometry == other.geometry) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"hyper": {"temperature": 0.5, "strength": 0.3, "blur": 0.0}},
        {"train": {"duration": {"steps": 80}}},
        {"optim": {"lr": 1.0}},
        {"backbone": {"width": 64}},
        {"resources": {"data_cpus": 2.0, "data_memory": 64}},
    ],
    ids=str,
)
def test_runs_that_differ_after_the_crop_have_one_key(
    planned: Callable[..., tuple[PlannedRun, ...]], changes: dict[str, Any]
) -> None:
    (one,), (other,) = planned(), planned(**changes)
    assert one.id != other.id or "resources" in changes
    assert stream_key(one) == stream_key(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "mae"},
        {"hyper": {"crop_min": 0.5}},
        {"backbone": {"image_size": 16}},
        {"train": {"batch": 32}},
        {"stream": {"chunk": 4}},
        {"stream": {"lanes": 8}},
        {"stream": {"remainder": "wrap"}},
        {"seeds": [1]},
        {"resources": {"workers": 2}},
    ],
    ids=str,
)
def test_runs_that_see_other_crops_do_not(
    planned: Callable[..., tuple[PlannedRun, ...]], changes: dict[str, Any]
) -> None:
    (one,), (other,) = planned(), planned(**changes)
    assert stream_key(one) != stream_key(other)


def test_other_data_have_another_key_and_whoever_never_shares_has_none(
    planned: Callable[..., tuple[PlannedRun, ...]], tmp_path: Path, make: Callable[..., Manifest]
) -> None:
    (one,) = planned()
    (other,) = planned(data={"train": make(tmp_path / "other", number=64, seed=1).root})
    assert stream_key(one) != stream_key(other)
    (never,) = planned(stream={"share": "never"})
    assert stream_key(never) is None
    assert never.id == one.id


def test_runs_of_one_stream_start_together(planned: Callable[..., tuple[PlannedRun, ...]]) -> None:
    """Three temperatures of three seeds, as a sweep lists them: all seeds of one, then of the next."""
    listed = [run for value in (0.1, 0.2, 0.5) for run in planned(hyper={"temperature": value}, seeds=3)]
    ordered = sort_by_stream(listed, 2)
    assert [(run.run.seed, run.run.hyper.temperature) for run in ordered] == [
        (seed, value) for seed in range(3) for value in (0.1, 0.2, 0.5)
    ]
    assert {run.peers for run in ordered} == {2}
    assert {run.peers for run in sort_by_stream(listed, 8)} == {3}
    assert {run.peers for run in sort_by_stream(planned(seeds=3), 8)} == {1}
    assert {run.id for run in ordered} == {run.id for run in listed}
    assert list(sharing(run.own for run in map(summarize, listed) if run.own)) == [
        "  9 runs of 3 streams: those of one that train at the same time share it"
    ]
    assert list(sharing(run.own for run in map(summarize, planned(seeds=3)) if run.own)) == []


def test_what_is_trained_already_or_once_for_two_runs_is_fed_nothing(
    planned: Callable[..., tuple[PlannedRun, ...]],
) -> None:
    (one,), (twin,) = planned(), planned()
    assert [len(group) for group in group_by_stream([one, twin])] == [1]
    (other,) = planned(hyper={"temperature": 0.5})
    assert [len(group) for group in group_by_stream([one, other])] == [2]
    assert other.pretrain
    other.pretrain.claim()
    other.pretrain.finish({})
    assert [len(group) for group in group_by_stream([one, other])] == [1]
