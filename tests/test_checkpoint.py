"""Checkpoints: whole, atomic, checked, and refused where they do not belong."""

import json
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
from selfsup.sealed import sealed

RESOLVED: dict[str, Any] = {"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "evals": {}, "data": {"val": None}}


def state(value: float, size: int = 10) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module full of `value`, and an optimizer that remembers a gradient of `value`."""
    module = nn.Linear(size, size)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
        parameter.grad = torch.full_like(parameter, value)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    optimizer.step()
    return module, optimizer


def save(root: Path, value: float, *, step: int, size: int = 10, keep: int = 2) -> Path:
    """Where it is."""
    module, optimizer = state(value, size)
    checkpoint.save(
        root, step=step, module=module.state_dict(), optimizer=optimizer.state_dict(), resolved=RESOLVED, keep=keep
    )
    return root / f"checkpoint_{step:09d}"


def load(root: Path, *, size: int = 10, **changed: Any) -> tuple[int, float, float]:
    """The step, a weight, and a momentum, as they come back into a module that held others."""
    module, optimizer = state(-1.0, size)
    step, _ = checkpoint.resume(root, module=module, optimizer=optimizer, resolved=RESOLVED | changed)
    first = next(module.parameters())
    return step, first[0, 0].item(), optimizer.state[first]["momentum_buffer"][0, 0].item()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: the kernel refuses a write half-way, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_comes_back_whole(tmp_path: Path) -> None:
    save(tmp_path / "new", 3.0, step=7)
    assert load(tmp_path / "new") == (7, 3.0, 3.0)
    assert names(tmp_path / "new") == ["checkpoint_000000007"]


def test_without_one_a_run_begins(tmp_path: Path) -> None:
    assert load(tmp_path) == (0, -1.0, -1.0)


def test_the_latest_is_taken_and_as_many_are_kept_as_asked_for(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, float(step), step=step)
    assert load(tmp_path) == (10, 10.0, 10.0)
    assert names(tmp_path) == ["checkpoint_000000002", "checkpoint_000000010"]
    save(tmp_path, 11.0, step=11, keep=1)
    assert names(tmp_path) == ["checkpoint_000000011"]


def test_a_flipped_bit_anywhere_is_found_and_the_one_before_is_taken(tmp_path: Path) -> None:
    """Every byte of both files, except where the digests end in blanks."""
    save(tmp_path, 1.0, step=1)
    latest = save(tmp_path, 2.0, step=2)
    for file in sorted(latest.iterdir()):
        whole = file.read_bytes()
        for place in range(0, len(whole), 1 if len(whole) < 200 else 29):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            file.write_bytes(flipped)
            module, optimizer = state(-1.0)
            found = checkpoint.resume(tmp_path, module=module, optimizer=optimizer, resolved=RESOLVED)
            assert found.step == (2 if json_blank(whole, flipped) else 1), (file, place)
            assert next(module.parameters())[0, 0].item() == found.step
        file.write_bytes(whole)
    assert load(tmp_path) == (2, 2.0, 2.0)


def json_blank(whole: bytes, flipped: bytes) -> bool:
    """Whether both are JSON and say the same."""
    try:
        return bool(json.loads(whole) == json.loads(flipped))
    except ValueError:
        return False


def test_what_is_damaged_is_told_and_replaced_when_training_comes_there_again(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1)
    (save(tmp_path, 2.0, step=5) / checkpoint.FILE).unlink()
    module, optimizer = state(-1.0)
    _, [told] = checkpoint.resume(tmp_path, module=module, optimizer=optimizer, resolved=RESOLVED)
    assert told.startswith(f"{tmp_path / 'checkpoint_000000005'}: cannot read the checkpoint: incomplete: ")
    save(tmp_path, 3.0, step=3)
    assert names(tmp_path) == ["checkpoint_000000001", "checkpoint_000000003"]
    assert load(tmp_path) == (3, 3.0, 3.0)


def test_a_full_disk_keeps_the_last_good_one(tmp_path: Path) -> None:
    path = save(tmp_path, 1.0, step=1, size=200)
    room = (path / checkpoint.FILE).stat().st_size // 2
    with full_disk(room), pytest.raises(CheckpointError) as caught:
        save(tmp_path, 2.0, step=2, size=200)
    assert str(tmp_path / "checkpoint_000000002") in str(caught.value)
    assert "step 2" in str(caught.value)
    assert "File too large" in str(caught.value)
    assert names(tmp_path) == ["checkpoint_000000001"]
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
    other = {"seed": 1, "optim": {"lr": 0.2, "betas": [0.9, 0.95]}, "data": {"val": None}}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.resume(tmp_path, module=module, optimizer=optimizer, resolved=other)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        "optim.lr: 0.2 here, 0.1 there",
        "seed: 1 here, 0 there",
    ]
    assert next(module.parameters())[0, 0].item() == -1.0, "a refused checkpoint must not have been loaded"


def test_knobs_that_are_new_or_were_removed_since_are_no_differences(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1)
    module, optimizer = state(-1.0)
    later = {"seed": 0, "optim": {"lr": 0.1, "betas": [0.9, 0.95], "new": 1}, "input": {"new": None}}
    assert checkpoint.resume(tmp_path, module=module, optimizer=optimizer, resolved=later).step == 1
    assert next(module.parameters())[0, 0].item() == 1.0


def test_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1.0, step=1, size=10)
    with pytest.raises(
        CheckpointError,
        match=r"state\.pt: does not fit: weights: different: bias \(10,\) float32, not \(11,\) float32, "
        "weight",
    ):
        load(tmp_path, size=11)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_damaged_ones_are_all_named_where_none_is_whole(tmp_path: Path, keep: float) -> None:
    for step in (1, 2):
        path = save(tmp_path, 1.0, step=step) / checkpoint.FILE
        whole = path.read_bytes()
        path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(CheckpointError, match=r"(?s)_000000002: .* not as it was written.*_000000001: .*start anew"):
        load(tmp_path)


@pytest.mark.parametrize("held", [{"step": Path("/")}, {"step": 1, "module": {}}, []])
def test_nothing_in_it_is_run_and_something_else_is_refused(tmp_path: Path, held: Any) -> None:
    with sealed(tmp_path / "checkpoint_000000001") as folder:
        torch.save(held, folder / checkpoint.FILE)
    with pytest.raises(CheckpointError, match="cannot read"):
        load(tmp_path)


def forged(path: Path, forge: Any) -> Path:
    """A checkpoint that holds something else, with the digests of that."""
    held = torch.load(path / checkpoint.FILE)
    forge(held)
    with sealed(path) as folder:
        torch.save(held, folder / checkpoint.FILE)
    return path


def weights(held: Any) -> Any:
    return held["module"]


def moments(held: Any) -> Any:
    return held["optimizer"]["state"]


FORGERIES = {
    "weights: missing: bias": lambda held: weights(held).pop("bias"),
    "weights: unexpected: other": lambda held: weights(held).update(other=torch.ones(1)),
    r"different: bias \(1, 10\) float32, not \(10,\)": lambda held: weights(held)["bias"].unsqueeze_(0),
    r"\(10,\) float64, not \(10,\) float32": lambda held: weights(held).update(bias=weights(held)["bias"].double()),
    r"bias dict, not \(10,\) float32": lambda held: weights(held).update(bias={}),
    "optimizer: missing: weight.momentum_buffer": lambda held: moments(held)[0].clear(),
    "missing: weight.momentum_buffer, bias": lambda held: moments(held).clear(),
    "missing: bias.momentum_buffer": lambda held: moments(held).pop(1),
    "unexpected: 2.momentum_buffer": lambda held: moments(held).update({2: moments(held)[0]}),
    "unexpected: weight.step": lambda held: moments(held)[0].update(step=torch.ones(())),
    r"momentum_buffer \(10,\) float32, not \(10, 10\) float32": lambda held: moments(held).update(
        {0: moments(held)[1]}
    ),
    r"momentum_buffer \(10,\) bfloat16, not": lambda held: moments(held)[1].update(
        momentum_buffer=torch.ones(10, dtype=torch.bfloat16)
    ),
    "weight.momentum_buffer NoneType, not": lambda held: moments(held)[0].update(momentum_buffer=None),
    "groups of no weights; expected 2": lambda held: held["optimizer"]["param_groups"].clear(),
    r"groups of 1 weights; expected 2": lambda held: held["optimizer"]["param_groups"][0]["params"].pop(),
    "KeyError: 'param_groups'": lambda held: held["optimizer"].pop("param_groups"),
    "list": lambda held: held["optimizer"].update(state=[1]),
}


@pytest.mark.parametrize("message", FORGERIES)
def test_a_whole_one_that_does_not_fit_is_as_damaged(tmp_path: Path, message: str) -> None:
    """Digests of ours over a state that is not."""
    latest = forged(save(tmp_path, 2.0, step=2), FORGERIES[message])
    with pytest.raises(CheckpointError, match=rf"{latest / checkpoint.FILE}: does not fit: .*{message}"):
        load(tmp_path)
    save(tmp_path, 1.0, step=1)
    assert load(tmp_path) == (1, 1.0, 1.0)


def test_a_group_is_what_the_settings_say_whatever_a_checkpoint_holds(tmp_path: Path) -> None:
    forged(save(tmp_path, 2.0, step=2), lambda held: held["optimizer"]["param_groups"][0].update(momentum="x"))
    assert load(tmp_path) == (2, 2.0, 2.0)


def test_weights_that_do_not_move_yet_have_no_moments_together(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        module = nn.Linear(2, 2)
        groups = [{"params": [module.weight], "frozen_until": 0.0}, {"params": [module.bias], "frozen_until": 0.5}]
        return module, torch.optim.AdamW(groups, fused=True)

    module, optimizer = made()
    for step, named in ((1, ["weight"]), (2, ["weight", "bias"])):
        for name in named:
            module.get_parameter(name).grad = torch.ones_like(module.get_parameter(name))
        optimizer.step()
        checkpoint.save(
            tmp_path, step=step, module=module.state_dict(), optimizer=optimizer.state_dict(), resolved={}, keep=1
        )
        other, fresh = made()
        assert checkpoint.resume(tmp_path, module=other, optimizer=fresh, resolved={}).step == step
        assert len(fresh.state) == step
        torch.testing.assert_close(fresh.state_dict(), optimizer.state_dict())
