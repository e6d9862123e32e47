"""What a run can go on from, and its best model: tensors as safetensors beside JSON, both with checksums."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data2vec2.files import sha256_of, whole_folder


class Best:
    """RUN/best/step-N: the weights with the highest validation score, and in their state the score.

    A resumed run needs nothing else: an update that is made again gives the same score, and the first of equals stays.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "best"
        found = self.load()
        self.score = float(found.state["score"]) if found else float("-inf")

    def is_best(self, score: float) -> bool:
        """Whether a score is higher than all before; NaN never is."""
        return score > self.score

    def save(self, step: int, score: float, model: nn.Module) -> None:
        """Keep this model in place of the one before."""
        kept = save_checkpoint(self.folder, step, {"model": model.state_dict()}, {"score": score}, keep=2)
        for other in list_checkpoints(self.folder):
            if other != kept:  # also of a later update: a run may go on from before it with another --train.eval-every
                shutil.rmtree(other)
        self.score = score

    def load(self) -> Checkpoint | None:
        """The best model, if there is one."""
        return load_newest(self.folder)[0]


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
    """Write step-N under `folder`, whole or not at all (else `UserError`), and remove all but the newest `keep`."""
    for stale in folder.glob(".step-*.tmp"):
        shutil.rmtree(stale)
    final = folder / f"step-{step}"
    with whole_folder(final, replace=True) as new:  # the same step again, after a damaged one was passed over
        checksums = {}
        for name, tensors in groups.items():
            path = new / f"{name}.safetensors"
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
            checksums[path.name] = sha256_of(path)
        checksums[STATE] = _sha256_of_state(step, state)
        meta = {"format": FORMAT, "step": step, "sha256": checksums, "state": state}
        (new / STATE).write_text(json.dumps(meta, indent=1))
    for old in list_checkpoints(folder)[keep:]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = {int(path.name[5:]): path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)}
    return [found[step] for step in sorted(found, reverse=True)]


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint; `DamagedCheckpoint` if a file is missing, changed or of another format."""
    try:
        meta = json.loads((folder / STATE).read_text())
        if meta["format"] != FORMAT:
            raise DamagedCheckpoint(f"{folder} has format {meta['format']}; this version reads {FORMAT}")
        groups = {}
        for name, expected in meta["sha256"].items():
            found = _sha256_of_state(meta["step"], meta["state"]) if name == STATE else sha256_of(folder / name)
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


def _sha256_of_state(step: int, state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([step, state]).encode()).hexdigest()
