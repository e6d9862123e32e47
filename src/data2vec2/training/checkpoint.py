"""Checkpoints: safetensors and JSON, whole or not at all.

RUN/checkpoints/step-N/ holds the named groups of tensors (`model.safetensors`, `optimizer.safetensors`) and
`state.json`: format version, step, the loop's state, and SHA-256 checksums of these and of every other file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was read back."""

    step: int
    groups: dict[str, dict[str, Tensor]]
    """Tensors of each group, on the CPU."""
    state: dict[str, Any]
    """The loop's own state."""
    folder: Path


class DamagedCheckpoint(Exception):
    """A checkpoint that can't be used; the message says why."""


def save_checkpoint(
    folder: Path, step: int, groups: dict[str, dict[str, Tensor]], state: dict[str, Any], *, keep: int
) -> Path:
    """Write step-N under `folder` and remove all but the newest `keep` checkpoints.

    Everything is written to a temporary folder, flushed to the disk and then renamed, so a checkpoint is never half
    there under its final name, whenever the process dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step}"
    temporary = folder / f".step-{step}.tmp"
    for stale in folder.glob(".step-*.tmp"):
        shutil.rmtree(stale)
    temporary.mkdir()
    checksums = {}
    for name, tensors in groups.items():
        path = temporary / f"{name}.safetensors"
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
        _flush(path)
        checksums[path.name] = _sha256(path)
    checksums[STATE] = _sha256_of_state(step, state)
    meta = {"format": FORMAT, "step": step, "sha256": checksums, "state": state}
    state_path = temporary / STATE
    state_path.write_text(json.dumps(meta, indent=1))
    _flush(state_path)
    _flush(temporary)
    if final.exists():  # the same step again, after a damaged one was passed over
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(folder)
    for old in list_checkpoints(folder)[keep:]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.removeprefix("step-")))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint; `DamagedCheckpoint` if a file is missing, changed or of another format."""
    try:
        meta = json.loads((folder / STATE).read_text())
        if meta["format"] != FORMAT:
            raise DamagedCheckpoint(f"{folder} has format {meta['format']}; this version reads {FORMAT}")
        groups = {}
        for name, expected in meta["sha256"].items():
            found = _sha256_of_state(meta["step"], meta["state"]) if name == STATE else _sha256(folder / name)
            if found != expected:
                raise DamagedCheckpoint(f"{folder / name} has changed since it was written")
            if name != STATE:
                groups[name.removesuffix(".safetensors")] = load_file(folder / name)
        return Checkpoint(meta["step"], groups, meta["state"], folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{folder} can't be read: {error}") from error


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest usable checkpoint, if there is one, and a message for each newer one that is damaged."""
    damaged: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path), damaged
        except DamagedCheckpoint as error:
            damaged.append(str(error))
    return None, damaged


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_state(step: int, state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([step, state]).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open folders; its renames are flushed with the volume
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
