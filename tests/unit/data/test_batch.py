"""Processes that read: what they say, and when they say nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ORPHAN = """
import multiprocessing, os, signal, sys, threading, time
from data2vec2.data.batch import _quiet_worker

def reader(waits):
    _quiet_worker(0)
    if waits:
        os.kill(os.getppid(), signal.SIGKILL)
        multiprocessing.parent_process().join()
    threading.excepthook = lambda found: sys.excepthook(*found[:3])
    thread = threading.Thread(target=lambda: [][0])
    thread.start()
    thread.join()
    print("the end", flush=True)

multiprocessing.get_context("fork").Process(target=reader, args=(sys.argv[1:] == ["kill"],)).start()
time.sleep(60 if sys.argv[1:] else 0)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_reader_says_nothing_of_what_only_the_end_of_its_run_broke(killed: bool) -> None:
    """A thread of its multiprocessing waits for a connection to the run, whose kill -9 it notices first."""
    flags = ["kill"] if killed else []
    done = subprocess.run([sys.executable, "-c", ORPHAN, *flags], capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if killed else 0)
    assert "the end" in done.stdout
    assert ("IndexError" in done.stderr) != killed
