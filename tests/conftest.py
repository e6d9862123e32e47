"""What every test starts from."""

import os
import signal

# One thread an operation, also in child processes: small operations gain nothing from more, and lose much to
# waiting for each other when another process wants the cores (LOG.md, "Threads of small models"). torch reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it runs in the background with Ctrl-C ignored, and child processes would inherit that; they begin
# with the default where this process handles the signal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="also the long tests of faults (make test-faults)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests of faults out, unless they are asked for."""
    if not config.getoption("--faults"):
        left_out = [item for item in items if item.get_closest_marker("fault")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """No test depends on which others ran before it."""
    torch.manual_seed(0)
