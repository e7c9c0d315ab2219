"""Tensors on disk: as they were, or refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfsup import tensors
from selfsup.errors import CheckpointError

STATE = {
    "weight": torch.arange(12.0).reshape(3, 4).T,  # not contiguous
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "count": torch.tensor(7),
    "nothing": torch.zeros(0, 2),
}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(
        torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in STATE.items()
    )


def test_they_come_back_with_what_was_told_and_others_read_them(tmp_path: Path) -> None:
    tensors.save(STATE, tmp_path / "a", {"backbone": "x"})
    state, told = tensors.load(tmp_path / "a")
    assert same(state)
    assert told == {"backbone": "x"}
    assert same(load_file(tmp_path / "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_those_of_others_have_no_digest_and_are_taken(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "a")
    assert tensors.load(tmp_path / "a")[0]["x"].tolist() == [1.0, 1.0]


def test_a_flipped_bit_anywhere_is_found_or_without_effect(tmp_path: Path) -> None:
    tensors.save(STATE, tmp_path / "a", {"backbone": "x"})
    whole, found = (tmp_path / "a").read_bytes(), 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (tmp_path / "a").write_bytes(flipped)
        try:
            state, told = tensors.load(tmp_path / "a")
        except CheckpointError:
            found += 1
        else:
            assert same(state), place
            assert told["backbone"] == "x", place
    assert found > 0.9 * len(whole)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_cut_one_is_named(tmp_path: Path, keep: int) -> None:
    tensors.save(STATE, tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{tmp_path / 'a'}: cannot read"):
        tensors.load(tmp_path / "a")


def test_a_module_takes_all_of_its_own_state_or_none(tmp_path: Path) -> None:
    path, module = tmp_path / "w.safetensors", torch.nn.Linear(2, 3)
    tensors.save({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, path)
    tensors.fill(module, path)
    assert module.bias.tolist() == [1.0, 1.0, 1.0]
    tensors.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(3).double(), "other": torch.ones(1)}, path)
    wrong = r"fit: unexpected: other; different: bias \(3,\) float64, not \(3,\) float32"
    with pytest.raises(CheckpointError, match=wrong):
        tensors.fill(module, path)
    assert module.weight.sum() == 6.0
