"""Ten steps of objectives are the authors': in one process, in two, and where a run was stopped and restored between.

In double precision, where neither AdamW nor an order of summation leaves room for rounding. Run as a script with
(folder, names), this file forks two processes, which leave there what they end with.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
import torch
from loops import LOOPS
from loops.ours import Make, Trained, Trainer, begin
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.multiprocessing import start_processes

from selfsup import checkpoint
from selfsup.method import load, names

WORLD, STOP = 2, 4
RESTORED = (
    *("simclr", "byol", "vicreg", "swav", "barlow", "dino", "ibot", "dinov2", "msn", "moco", "mocov3", "mae"),
    *("ijepa", "data2vec", "macrl", "capi", "vqvae", "vqvae_gumbel", "colorization", "droppos"),  # with state of theirs
)
OTHER_WORLDS = "swav", "ibot", "moco"  # restored in another number of processes, too: their state is of all kinds
SHARDED = "mae", "ibot", "mixedae"  # with weights in parts, too: a teacher's, and blocks' whose weights others read
PARTED = "one", "parts"  # checkpoints that those of SHARDED go on from
SEVERAL = tuple(name for name in LOOPS if name in {*names(), *RESTORED})  # a loop of each objective
STATELESS = tuple(  # whose processes share gradients alone, as test_processes sees in a step
    name for name in SEVERAL if name not in RESTORED and load(name).separable
)


def stopped(name: str, setting: Make, root: Path, *, sharded: bool = False) -> tuple[Trainer, list[float]]:
    """Take the first steps, and leave a checkpoint."""
    trainer = Trainer(LOOPS[name], setting)
    if sharded:
        trainer.shard()
    losses = trainer.run(0, STOP)
    states = {"module": trainer.method.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    checkpoint.save(root, step=STOP, resolved={"loop": name}, keep=1, **states)
    return trainer, losses


def restored(name: str, setting: Make, root: Path, *, sharded: bool = False) -> Trained:
    """Restore a run into an objective of other weights, and finish it; return the last steps."""
    trainer = Trainer(LOOPS[name], setting, seed=1)
    parts = {"module": trainer.method, "optimizer": trainer.optimizer}
    start, _ = checkpoint.resume(root, resolved={"loop": name}, **parts)
    if sharded:
        trainer.shard()
    return Trained(trainer.run(start), trainer.state())


def work(rank: int, folder: Path, chosen: list[str], setting: Make) -> None:
    """Train each loop without a stop, from a checkpoint of two processes, and from one of one process."""
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    for name in chosen:
        trainer, losses = stopped(name, setting, folder / name / "two")
        ends = {"straight": Trained(losses + trainer.run(STOP), trainer.state())}
        barrier()
        roots = ["two"] * (name in RESTORED) + ["one"] * (name in OTHER_WORLDS)
        ends |= {root: restored(name, setting, folder / name / root) for root in roots}
        if name in SHARDED:
            stopped(name, setting, folder / name / "parts", sharded=True)
            barrier()
            ends |= {f"{root} in parts": restored(name, setting, folder / name / root, sharded=True) for root in PARTED}
        torch.save({end: tuple(trained) for end, trained in ends.items()}, folder / name / f"{rank}.pt")
    destroy_process_group()


@cache
def authors(name: str, setting: Make) -> Trained:
    return LOOPS[name].reference(*begin(LOOPS[name], setting))


def train_in_two(folder: Path, chosen: Iterable[str]) -> None:
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", __file__, str(folder), *chosen]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=600)


@pytest.fixture(scope="module")
def folder(setting: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where two processes left their results, name by name."""
    folder = tmp_path_factory.mktemp("gloo")
    for name in {*OTHER_WORLDS, *SHARDED}:
        stopped(name, setting, folder / name / "one")
    train_in_two(folder, [name for name in SEVERAL if name not in STATELESS])
    return folder


@pytest.fixture(scope="module")
def stateless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where two processes left those of the other objectives."""
    folder = tmp_path_factory.mktemp("stateless")
    train_in_two(folder, STATELESS)
    return folder


def results(folder: Path, name: str, rank: int = 0) -> dict[str, Trained]:
    return {end: Trained(*trained) for end, trained in torch.load(folder / name / f"{rank}.pt").items()}


def agree(ours: Trained, expected: Trained) -> None:
    """Compare the last losses and all weights, of which none may be missing."""
    assert ours.losses == pytest.approx(expected.losses[-len(ours.losses) :], rel=1e-9)
    theirs = {name: ours.state[name] for name in expected.state}
    torch.testing.assert_close(theirs, expected.state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LOOPS)
def test_ten_steps_are_the_authors(name: str, setting: Make) -> None:
    trainer, expected = Trainer(LOOPS[name], setting), authors(name, setting)
    first = {name: weight.clone() for name, weight in trainer.method.named_parameters()}
    losses = trainer.run()
    agree(Trained(losses, trainer.state()), expected)
    assert abs(losses[-1] - losses[0]) > 1e-2 * abs(losses[0])
    for path, weight in trainer.method.named_parameters():
        assert not (weight.equal(first[path]) and weight.requires_grad), path
        assert path in expected.state or not weight.requires_grad, path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in STATELESS)) for name in SEVERAL]
)
def test_ten_steps_of_two_processes_are_the_authors(name: str, setting: Make, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue("stateless" if name in STATELESS else "folder")
    one, two = (results(folder, name, rank)["straight"] for rank in range(WORLD))
    agree(one, authors(name, setting))
    torch.testing.assert_close(two, one, rtol=0, atol=0)


@pytest.mark.parametrize("name", RESTORED)
def test_two_processes_restored_after_four_steps_go_on_bit_for_bit(name: str, folder: Path) -> None:
    ends = results(folder, name)
    straight = Trained(ends["straight"].losses[STOP:], ends["straight"].state)
    torch.testing.assert_close(ends["two"], straight, rtol=0, atol=0)


@pytest.mark.parametrize("name", OTHER_WORLDS)
def test_two_processes_go_on_where_one_stopped(name: str, setting: Make, folder: Path) -> None:
    agree(results(folder, name)["one"], authors(name, setting))


@pytest.mark.parametrize("name", OTHER_WORLDS)
def test_one_process_goes_on_where_two_stopped(name: str, setting: Make, folder: Path) -> None:
    agree(restored(name, setting, folder / name / "two"), authors(name, setting))


@pytest.mark.parametrize("root", PARTED)
@pytest.mark.parametrize("name", SHARDED)
def test_two_processes_with_weights_in_parts_go_on(name: str, root: str, setting: Make, folder: Path) -> None:
    """Where one stopped, and where they did."""
    agree(results(folder, name)[f"{root} in parts"], authors(name, setting))


@pytest.mark.parametrize("name", SHARDED)
def test_one_process_goes_on_where_two_with_weights_in_parts_stopped(name: str, setting: Make, folder: Path) -> None:
    """Each of them has written its half."""
    one, half, other = (
        sum(file.stat().st_size for file in (folder / name / root).rglob(pattern))
        for root, pattern in (("one", "state.pt"), ("parts", "state.pt"), ("parts", "part-00001.pt"))
    )
    assert 0.4 * one < other < half < 0.7 * one
    agree(restored(name, setting, folder / name / "parts"), authors(name, setting))


if __name__ == "__main__":
    from small import setting

    start_processes(work, (Path(sys.argv[1]), sys.argv[2:], setting), nprocs=WORLD, start_method="fork")
