"""Batches of readers in a container whose shared memory is smaller than what is read ahead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from torch.utils.data import Dataset
from data2vec2.data.batch import Batch, iterate

class Ramps(Dataset):
    def __init__(self, size):
        self.size = size
    def __getitem__(self, step):
        return Batch(inputs=torch.arange(self.size) + step, keep_ids_NK=torch.full((3, 2), step))

if __name__ == "__main__":
    for size in (100, 100_000):
        for step, batch in enumerate(iterate(Ramps(size), 0, 24, workers=2)):
            assert torch.equal(batch.inputs, torch.arange(size) + step), step
            assert torch.equal(batch.keep_ids_NK, torch.full((3, 2), step)), step
            assert batch.piped == (size == 100_000), (step, size)
    print("all there")
"""
PRIVATE = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$@"', "sh"]


def test_batches_that_do_not_fit_shared_memory_go_through_pipes(tmp_path: Path) -> None:
    """Of 4 MiB, where eight batches of 800 kB are read ahead; written there, some would be lost, and waited for."""
    if not shutil.which("unshare") or subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system of one's own here")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [*PRIVATE, sys.executable, str(tmp_path / "program.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    assert run.stdout == "all there\n", run.stderr
    assert run.stderr == ""
