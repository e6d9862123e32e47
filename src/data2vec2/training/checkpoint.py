"""What a run can go on from, and its best model: tensors as safetensors beside JSON, both with checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data2vec2.files import WriteError, parse_json, sha256_of, whole_folder
from data2vec2.training.parallel import whole


class Best:
    """RUN/best/step-N: the weights with the highest validation score, and in their state the score.

    A resumed run needs nothing else: an update that is made again gives the same score, and the first of equals stays.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "best"
        found = self.load()
        score = found.state.get("score") if found else None
        self.score = score if isinstance(score, int | float) else float("-inf")
        self.waiting: tuple[int, float, dict[str, Tensor]] | None = None

    def is_best(self, score: float) -> bool:
        """Whether a score is higher than all before; NaN never is."""
        return score > self.score

    def put(self, step: int, score: float, tensors: dict[str, Tensor]) -> None:
        """Keep these weights in memory, for `save`; what is written stays as it is."""
        self.score, self.waiting = score, (step, score, tensors)

    def save(self) -> None:
        """Write the weights that wait, if any do, in place of those before; `WriteError` where they go on waiting."""
        if self.waiting:
            step, score, tensors = self.waiting
            kept = save_checkpoint(self.folder, step, {"model": tensors}, {"score": score}, keep=2)
            self.waiting = None
            for other in list_checkpoints(self.folder):
                if other != kept:  # also of a later update: a run may go on from before it with another evaluation
                    shutil.rmtree(other, ignore_errors=True)

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


class Writer:
    """Writes in a thread of its own, one thing after another, while training goes on."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._last: Future[Any] | None = None

    def put(self, write: Callable[..., object], *what: Any, **how: Any) -> None:
        """Let `write` be called; what was put before must be settled."""
        assert self._last is None
        self._last = self._pool.submit(write, *what, **how)

    def settle(self) -> None:
        """Wait until all is written; raises what writing raised."""
        last, self._last = self._last, None
        if last:
            last.result()

    def close(self) -> None:
        """Settle, and end the thread."""
        try:
            self.settle()
        finally:
            self._pool.shutdown()


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the machine's memory, which training leaves alone; of sharded tensors all processes must ask."""
    return {name: whole(tensor.detach()).to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def save_checkpoint(
    folder: Path,
    step: int,
    groups: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    *,
    keep: int,
    every: int | None = None,
) -> Path:
    """Write step-N under `folder`, whole or not at all (else `WriteError`).

    Then all are removed but the newest `keep` and those of every `every`-th update.
    """
    final = folder / f"step-{step}"
    if not folder.parent.is_dir():  # a run's folder is not made again: nothing else of it would be there
        raise WriteError(final, errno.ENOENT, f"; there is no folder {folder.parent}")
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
        if not every or step_of(old) % every:
            shutil.rmtree(old, ignore_errors=True)  # what can't be deleted now, the next save tries again
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The update after which a checkpoint was made, as its folder says."""
    return int(checkpoint.name[5:])


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint; `DamagedCheckpoint` if a file is missing, changed or of another format."""
    try:
        meta = parse_json((folder / STATE).read_text())
        if meta["format"] != FORMAT:
            raise DamagedCheckpoint(f"{folder} has format {meta['format']}; this version reads {FORMAT}")
        groups = {}
        for name, expected in meta["sha256"].items():
            if name != Path(name).name:
                raise DamagedCheckpoint(f"{folder} names a file {name!r} that is not in it")
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
