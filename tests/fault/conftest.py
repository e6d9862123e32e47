"""What tests of faults start from: the runs of tests/integration, and file systems that are small or frozen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import once, parted, pretrained, small, tuned, untrained, whole

__all__ = ["once", "parted", "pretrained", "small", "tuned", "untrained", "whole"]

needs_root = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs Linux and root, to mount file systems"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a file system of its own of a size ("3m"), which is gone when the test ends."""
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(mounted(tmp_path / f"disk-{size}", size))


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a file system up but for some bytes; returns the file that does, which may be deleted."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - leave))
    return filler


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """A folder or file that no one can change, not even root."""
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
