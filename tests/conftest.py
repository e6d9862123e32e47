"""What every test starts from."""

import os

# One thread an operation, also in child processes: small operations gain nothing from more, and lose much to
# waiting for each other when another process wants the cores (LOG.md, "Threads of small models"). torch reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """No test depends on which others ran before it."""
    torch.manual_seed(0)
