"""Checkpoints are whole or passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data2vec2.files import WriteError
from data2vec2.training.checkpoint import (
    DamagedCheckpoint,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)

STATE = {"window": [0.1, float(torch.tensor(1 / 3))], "elapsed_s": 12.5, "fingerprint": "ab"}


def groups(step: int) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {
            "a.weight": torch.randn(7, 5, generator=generator).T,  # not contiguous
            "half": torch.randn(3, generator=generator).bfloat16(),
            "scalar": torch.tensor(step),
        },
        "optimizer": {"exp_avg.a": torch.full((2, 2), float(step))},
    }


def save(folder: Path, *steps: int, keep: int = 3) -> None:
    for step in steps:
        save_checkpoint(folder, step, groups(step), STATE, keep=keep)


def assert_equals(found: dict[str, dict[str, torch.Tensor]], expected: dict[str, dict[str, torch.Tensor]]) -> None:
    assert found.keys() == expected.keys()
    for name, tensors in expected.items():
        assert found[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert found[name][key].dtype == tensor.dtype
            assert torch.equal(found[name][key], tensor)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 5)
    found = load_checkpoint(tmp_path / "step-5")
    assert (found.step, found.state) == (5, STATE)
    assert_equals(found.groups, groups(5))


def test_the_newest_is_found_by_number_and_old_ones_go(tmp_path: Path) -> None:
    save(tmp_path, 8, 9, 10, 100)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-100", "step-10", "step-9"]
    newest, damaged = load_newest(tmp_path)
    assert newest is not None
    assert newest.step == 100
    assert damaged == []


def test_other_things_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-mine").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    save(tmp_path, 1, 2, 3, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"step-mine", "notes.txt", "step-3"}


def test_the_folder_of_a_run_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"can't write .*step-1: No such file or directory; there is no folder"):
        save_checkpoint(tmp_path / "run" / "checkpoints", 1, {}, {}, keep=1)
    assert not list(tmp_path.iterdir())


def test_nothing_there(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") == (None, [])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bit in model": lambda step: flip(step / "model.safetensors", -3),
    "bit in header": lambda step: flip(step / "model.safetensors", 20),
    "bit in optimiser": lambda step: flip(step / "optimizer.safetensors", -1),
    "truncated": lambda step: (step / "model.safetensors").write_bytes((step / "model.safetensors").read_bytes()[:-10]),
    "empty": lambda step: (step / "optimizer.safetensors").write_bytes(b""),
    "missing": lambda step: (step / "model.safetensors").unlink(),
    "no state": lambda step: (step / "state.json").unlink(),
    "bad JSON": lambda step: (step / "state.json").write_text("{"),
    "not UTF-8": lambda step: (step / "state.json").write_bytes(b"\xff\xfe\xfd"),
    "a list": lambda step: (step / "state.json").write_text("[1]"),
    "other keys": lambda step: (step / "state.json").write_text('{"format": 1}'),
    "all gone": empty,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_is_passed_over_with_a_message(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1, 2)
    DAMAGE[kind](tmp_path / "step-2")
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(tmp_path / "step-2")
    found, damaged = load_newest(tmp_path)
    assert found is not None
    assert_equals(found.groups, groups(1))
    assert len(damaged) == 1
    assert "step-2" in damaged[0]


def test_flipped_bits_of_the_state_are_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "step-1" / "state.json"
    whole = path.read_bytes()
    meaning = json.loads(whole)
    for place in range(0, len(whole), 3):
        flip(path, place)
        try:
            if json.loads(path.read_bytes()) != meaning:  # some bits only change white space
                with pytest.raises(DamagedCheckpoint):
                    load_checkpoint(tmp_path / "step-1")
        except ValueError:
            with pytest.raises(DamagedCheckpoint):
                load_checkpoint(tmp_path / "step-1")
        path.write_bytes(whole)


def test_another_format_is_said(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "step-1" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(DamagedCheckpoint, match="format 99; this version reads 1"):
        load_checkpoint(tmp_path / "step-1")


def test_all_damaged(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / f"step-{step}" / "state.json").unlink()
    found, damaged = load_newest(tmp_path)
    assert found is None
    assert len(damaged) == 2


def test_saving_again_replaces_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    flip(tmp_path / "step-2" / "model.safetensors", -1)
    save(tmp_path, 2)
    found, damaged = load_newest(tmp_path)
    assert found is not None
    assert (found.step, damaged) == (2, [])
