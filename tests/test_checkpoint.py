"""Checkpoints: whole, atomic, and refused where they do not belong."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfsup import checkpoint
from selfsup.errors import CheckpointError

RESOLVED: dict[str, Any] = {"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "evals": {}, "data": {"val": None}}


def state(value: float, size: int = 10) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module full of `value`, and an optimiser that remembers a gradient of `value`."""
    module = nn.Linear(size, size)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
        parameter.grad = torch.full_like(parameter, value)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    optimizer.step()
    return module, optimizer


def save(folder: Path, value: float, *, step: int, size: int = 10) -> None:
    module, optimizer = state(value, size)
    checkpoint.save(folder, step=step, module=module, optimizer=optimizer, resolved=RESOLVED)


def load(folder: Path, *, size: int = 10, **changed: Any) -> tuple[int, float, float]:
    """The step, a weight, and a momentum, as they come back into a module that held others."""
    module, optimizer = state(-1.0, size)
    step = checkpoint.load(folder, module=module, optimizer=optimizer, resolved=RESOLVED | changed)
    first = next(module.parameters())
    return step, first[0, 0].item(), optimizer.state[first]["momentum_buffer"][0, 0].item()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: the kernel refuses a write half-way, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_comes_back_whole_and_leaves_one_file(tmp_path: Path) -> None:
    save(tmp_path / "new", 3.0, step=7)
    assert load(tmp_path / "new") == (7, 3.0, 3.0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [checkpoint.FILE]


def test_the_latest_replaces_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1)
    save(tmp_path, 2.0, step=2)
    assert load(tmp_path) == (2, 2.0, 2.0)


def test_a_full_disk_keeps_the_last_good_one(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1, size=200)
    room = (tmp_path / checkpoint.FILE).stat().st_size // 2
    with full_disk(room), pytest.raises(CheckpointError) as caught:
        save(tmp_path, 2.0, step=2, size=200)
    assert str(tmp_path / checkpoint.FILE) in str(caught.value)
    assert "step 2" in str(caught.value)
    assert "File too large" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]
    assert load(tmp_path, size=200) == (1, 1.0, 1.0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError, match="taken"):
        save(tmp_path / "taken", 1.0, step=1)


def test_a_crash_while_writing_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_: object, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    save(tmp_path, 1.0, step=1)
    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2.0, step=2)
    assert load(tmp_path) == (1, 1.0, 1.0)


def test_another_spec_is_refused_with_every_difference(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1)
    module, optimizer = state(-1.0)
    other = {"seed": 0, "optim": {"lr": 0.2, "betas": [0.9, 0.95]}, "evals": {"knn": {"k": 20}}, "data": {}}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path, module=module, optimizer=optimizer, resolved=other)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        "data: {} here, absent there",
        "data.val: absent here, None there",
        "evals: absent here, {} there",
        "evals.knn.k: 20 here, absent there",
        "optim.lr: 0.2 here, 0.1 there",
    ]
    assert next(module.parameters())[0, 0].item() == -1.0, "a refused checkpoint must not have been loaded"


def test_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1, size=10)
    with pytest.raises(CheckpointError, match="size mismatch"):
        load(tmp_path, size=11)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=checkpoint.FILE):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_a_damaged_one_is_named(tmp_path: Path, keep: float) -> None:
    save(tmp_path, 1.0, step=1)
    path = tmp_path / checkpoint.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(CheckpointError, match=checkpoint.FILE):
        load(tmp_path)


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    torch.save({"step": Path("/"), "module": {}, "optimizer": {}, "resolved": RESOLVED}, tmp_path / checkpoint.FILE)
    with pytest.raises(CheckpointError, match="cannot read"):
        load(tmp_path)
