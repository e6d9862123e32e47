"""Disks that are full, frozen or gone: that is said, nothing is half written, and training goes on where it can."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from data2vec2.files import WriteError, whole_file, whole_folder
from data2vec2.training.checkpoint import list_checkpoints, load_checkpoint
from tests.fault.conftest import fill, frozen, needs_root
from tests.integration.helpers import (
    FINETUNED,
    STOPPED,
    UPDATES,
    Child,
    assert_same_run,
    jpeg_folder,
    last_step,
    start,
    words,
)

Disk = Callable[[str], Path]
pytestmark = needs_root


def assert_said(output: str, *places: Path) -> None:
    """Of something that could not be written is said what, where and why, without a traceback."""
    assert "Traceback" not in output, output
    assert any(re.search(rf"can't (write|use) {re.escape(str(place))}", output) for place in places), output


def assert_nothing_half(folder: Path) -> None:
    """No file of another name is left, and every checkpoint is whole."""
    assert not list(folder.rglob(".*"))
    for name in ("checkpoints", "best"):
        for path in list_checkpoints(folder / name):
            load_checkpoint(path)


X = torch.rand(500_000)
LIBRARIES: dict[str, Callable[[BinaryIO, Path], object]] = {
    "safetensors": lambda file, path: save_file({"x": X}, path),
    "torch": lambda file, path: torch.save({"x": X}, file),
    "npz": lambda file, path: np.savez(file, x=X.numpy()),
    "npy": lambda file, path: np.save(file, X.numpy()),
    "parquet": lambda file, path: pq.write_table(pa.table({"x": X.numpy()}), file),
    "text": lambda file, path: path.write_text("x" * 2_000_000),
}
"""What else than Python writes files, each with an error of its own."""


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_on_a_full_disk(disk: Disk, library: str) -> None:
    place = disk("1m")
    (place / "target.npy").write_text("old")
    said = "can't write .*target.*: No space left on device; free some space there$"
    with (
        pytest.raises(WriteError, match=said),
        whole_folder(place / "target") as new,
        (new / "file").open("wb") as file,
    ):
        LIBRARIES[library](file, new / "other.npy")
    with pytest.raises(WriteError, match=said), whole_file(place / "target.npy") as file:
        LIBRARIES[library](file, place / ".target.npy.tmp")
    assert [path.name for path in place.iterdir()] == ["target.npy"]
    assert (place / "target.npy").read_text() == "old"


def test_a_full_disk_costs_a_checkpoint_but_no_training(tmp_path: Path, disk: Disk, small: Path, whole: Path) -> None:
    place = disk("64m")
    run = place / "run"
    child = Child(["pretrain", "image_tiny", small, "--out", run, *STOPPED], tmp_path / "out")
    child.until(lambda: last_step(run) >= 16)
    filler = fill(place)
    child.until(lambda: "no checkpoint of update" in child.output)
    filler.unlink()
    assert child.wait() == 0, child.output
    assert_said(child.output, run / "checkpoints")
    assert "No space left on device; free some space there" in child.output
    assert_same_run(run, whole, UPDATES)
    assert_nothing_half(run)


@pytest.mark.fault
@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_disk_that_stays_full_fails_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, disk: Disk, small: Path, untrained: Path, parted: Path, whole: Path, tuned: Path, verb: str
) -> None:
    place = disk("64m")
    run = place / "run"
    given = {
        "pretrain": ["pretrain", "image_tiny", small, "--out", run, *STOPPED],
        "finetune": ["finetune", "classify", untrained, parted, "--out", run, *FINETUNED],
    }[verb]
    child = Child(given, tmp_path / "out")
    child.until(lambda: last_step(run) >= 16)
    filler = fill(place)
    saved = list_checkpoints(run / "checkpoints")
    assert child.wait() == 1, child.output
    assert_said(child.output, run / "checkpoints", run / "best")
    assert child.output.splitlines()[-1].startswith("data2vec2: can't write")
    assert list_checkpoints(run / "checkpoints") == saved != []
    assert_nothing_half(run)
    filler.unlink()
    child = Child([*given, "--resume"], tmp_path / "again")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole if verb == "pretrain" else tuned, UPDATES if verb == "pretrain" else 30)


SIZES = (4, 8, 16, 40, 64, *range(100, 1300, 100))


@pytest.mark.parametrize("size", ["120k", *(pytest.param(f"{size}k", marks=pytest.mark.fault) for size in SIZES)])
def test_a_disk_too_small_for_a_run(tmp_path: Path, disk: Disk, small: Path, size: str) -> None:
    """Whatever is the first that finds no room: configuration, data, masks, metrics, checkpoint, export or report."""
    run = disk(size) / "run"
    flags = [*STOPPED, *words("--train.updates 8 --train.keep 1")]
    child = Child(["pretrain", "image_tiny", small, "--out", run, *flags], tmp_path / "out")
    code = child.wait()
    assert code in (0, 1), child.output
    assert "Traceback" not in child.output, child.output
    if code:
        assert_said(child.output, run)
        assert child.output.splitlines()[-1].startswith("data2vec2: ")
    status = run / "status.json"
    if code and status.exists():
        said = json.loads(status.read_text())
        assert said["state"] == "finished" or said["message"] in child.output
    assert_nothing_half(run)


def test_a_disk_that_is_full_at_the_start(tmp_path: Path, disk: Disk, small: Path) -> None:
    """Not even the lock's holder can be noted then."""
    run = disk("6m") / "run"
    for code in (1, 0):
        filler = fill(run.parent) if code else None
        child = Child(["pretrain", "image_tiny", small, "--out", run, *STOPPED], tmp_path / f"out{code}")
        assert child.wait() == code, child.output
        if filler:
            assert_said(child.output, run / "lock")
            filler.unlink()


@pytest.mark.fault
def test_a_run_folder_that_is_deleted_is_not_made_again(tmp_path: Path, small: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 10)
    shutil.rmtree(run)
    assert child.wait() == 1, child.output
    assert_said(child.output, run)
    assert f"there is no folder {run}" in child.output
    assert not run.exists()


@pytest.mark.fault
@pytest.mark.parametrize("name", ["", "checkpoints", "metrics.jsonl", "train.log"])
def test_what_is_frozen_while_it_trains(tmp_path: Path, small: Path, whole: Path, name: str) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 10)
    with frozen(run / name):
        code = child.wait()
    assert_said(child.output, run / name)
    assert code == (0 if name.endswith(("l", "g")) else 1), child.output
    status = json.loads((run / "status.json").read_text()) if (run / "status.json").exists() else None
    if name == "checkpoints":
        assert status and status["state"] == "failed"
        assert "Operation not permitted" in status["message"]
    child = start(run, small, "--resume")
    assert child.wait() == 0, child.output
    assert_nothing_half(run)
    if name != "metrics.jsonl":  # lines of which were lost with the process
        assert_same_run(run, whole, UPDATES)


@pytest.mark.fault
@pytest.mark.parametrize("kilobytes", [1, 4, 16, 64])
def test_a_limit_of_files_sizes(tmp_path: Path, small: Path, kilobytes: int) -> None:
    """As `ulimit -f` sets it, also for who is not root."""
    run, usual = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    child = start(run, small, "--train.updates", "8")
    child.until(lambda: bool(child.process.pid))
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (kilobytes << 10, usual[1]))
    assert child.wait() == 1, child.output[-3000:]
    assert_said(child.output, run)
    assert_nothing_half(run)


VERBS: dict[str, Sequence[str]] = {
    "embed": ("embed", "MODEL", "DATA", "--out", "DISK/out.parquet"),
    "embed-npz": ("embed", "MODEL", "DATA", "--out", "DISK/out.npz"),
    "embed-csv": ("embed", "MODEL", "DATA", "--out", "DISK/out.csv"),
    "predict": ("predict", "MODEL", "PICTURES", "--out", "DISK/out.tsv"),
    "export": ("export", "MODEL", "DISK/out"),
    "export-torch": ("export", "MODEL", "DISK/out", "--to", "torch"),
    "convert": ("convert", "RUN", "DISK/out.pt", "--to", "fairseq"),
    "inspect": ("inspect", "DATA", "--out", "DISK/out.html"),
    "report": ("report", "RUN", "--out", "DISK/out.html"),
    "tokenizer": ("tokenizer", "train", "TEXTS", "--out", "DISK/out"),
}
"""What each verb writes, but for training."""


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=[] if verb in ("embed", "convert") else pytest.mark.fault) for verb in VERBS]
)
def test_every_verb_on_a_full_disk(
    tmp_path: Path, disk: Disk, pretrained: Path, tuned: Path, parted: Path, verb: str
) -> None:
    place = disk("8k")
    fill(place)
    (tmp_path / "texts.txt").write_text("one text\nand another\n" * 20)
    known = {"MODEL": tuned, "RUN": pretrained, "DATA": parted, "TEXTS": tmp_path / "texts.txt"}
    known["PICTURES"] = jpeg_folder(tmp_path / "pictures", 40) if "PICTURES" in VERBS[verb] else tmp_path
    child = Child([known.get(word, word.replace("DISK", str(place))) for word in VERBS[verb]], tmp_path / "out")
    assert child.wait() == 1, child.output
    assert_said(child.output, place / VERBS[verb][-1 if "DISK" in VERBS[verb][-1] else 2].rpartition("/")[2])
    assert "No space left on device" in child.output
    assert [path.name for path in place.iterdir()] == ["filler"]


@pytest.mark.fault
def test_a_full_cache(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of texts, which stand in the cache folder."""
    place = disk("8k")
    fill(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    (tmp_path / "texts.txt").write_text("".join(f"text number {number} of many\n" for number in range(400)))
    flags = words("--train.updates 2 --train.batch-size 4 --train.processes 1 --data.workers 0")
    child = Child(
        ["pretrain", "text_tiny", tmp_path / "texts.txt", "--out", tmp_path / "run", *flags], tmp_path / "out"
    )
    assert child.wait() == 1, child.output
    assert_said(child.output, place / "data2vec2")
    assert "XDG_CACHE_HOME names another folder" in child.output
    assert not [path for path in place.rglob("*") if path.is_file() and path.name != "filler"]
