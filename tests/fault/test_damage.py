"""A checkpoint with any damage is refused, and the one before is used."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from data2vec2.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint, load_newest

Damage = Callable[[Path, random.Random], object]


def changed(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def blank(content: bytearray, chance: random.Random) -> None:
    """As a file system leaves a block that it had no time to write."""
    start = chance.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


DAMAGES: dict[str, Damage] = {
    "flipped bit": lambda path, chance: changed(path, lambda content: flip(content, chance)),
    "blank block": lambda path, chance: changed(path, lambda content: blank(content, chance)),
    "cut short": lambda path, chance: changed(path, lambda content: cut(content, chance)),
    "more behind it": lambda path, chance: changed(path, lambda content: content.extend(bytes(8))),
    "empty": lambda path, chance: path.write_bytes(b""),
    "gone": lambda path, chance: path.unlink(),
    "a folder": lambda path, chance: (path.unlink(), path.mkdir()),
    "of another": lambda path, chance: path.write_bytes(path.with_name("of another").read_bytes()),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_damages_of_every_file(tmp_path: Path, pretrained: Path, name: str, kind: str) -> None:
    """Twelve times with another seed, so that there are 288 in all."""
    newest, older, *_ = list_checkpoints(pretrained / "checkpoints")
    for seed in range(12):
        folder = tmp_path / str(seed)
        path = shutil.copytree(newest, folder / newest.name) / name
        shutil.copytree(older, folder / older.name)
        shutil.copy(older / name, path.with_name("of another"))
        before = path.read_bytes()
        DAMAGES[kind](path, random.Random(seed))
        if path.is_file() and path.read_bytes() == before:
            continue  # it was blank before
        if name == "state.json" and path.is_file() and says_the_same(path.read_bytes(), before):
            continue
        with pytest.raises(DamagedCheckpoint, match=newest.name):
            load_checkpoint(path.parent)
        found, messages = load_newest(folder)
        assert found and found.folder.name == older.name
        assert len(messages) == 1 and str(path.parent) in messages[0]


def says_the_same(now: bytes, before: bytes) -> bool:
    """Whether a change is one of the spaces between values alone."""
    with suppress(ValueError):
        return bool(json.loads(now) == json.loads(before))
    return False


def test_a_checkpoint_reads_nothing_outside_of_its_folder(tmp_path: Path, pretrained: Path) -> None:
    newest = shutil.copytree(list_checkpoints(pretrained / "checkpoints")[0], tmp_path / "step-1")
    for outside in ("/dev/zero", "../secret.safetensors"):  # the first has no end
        state = newest / "state.json"
        state.write_text(state.read_text().replace('"model.safetensors"', f'"{outside}"'))
        with pytest.raises(DamagedCheckpoint, match=f"'{outside}' that is not in it"):
            load_checkpoint(newest)
        state.write_text(state.read_text().replace(f'"{outside}"', '"model.safetensors"'))
