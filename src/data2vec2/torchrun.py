"""torchrun with the run's own exit code: `python -m data2vec2.torchrun TORCHRUN_FLAGS -m data2vec2 pretrain ...`.

torchrun itself ends with 1 whatever its processes end with, so that a job script can't tell an interrupted run, which
should be queued again (75), from a failed one. It also waits only half a minute for a checkpoint.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from data2vec2.cli import FAILED, STATES
from data2vec2.errors import UserError
from data2vec2.files import read_json
from data2vec2.training.run import STATUS

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGUSR1"
PATIENCE_S = 600
"""Seconds for the last update and its checkpoint."""


def main(words: list[str]) -> int:
    """Run torchrun's command line; returns the exit code of its processes, or of the run that a signal interrupted."""
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", SIGNALS)
    os.environ.setdefault("PET_SHUTDOWN_TIMEOUT", str(PATIENCE_S))
    try:
        torchrun(words)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        return next(iter(codes)) if len(codes) == 1 and min(codes) > 0 else FAILED
    except SignalException:
        return _state_of(words)
    return 0


def _state_of(words: list[str]) -> int:
    """The exit code for the state that the run's folder tells of."""
    with suppress(UserError, ValueError, KeyError, IndexError):
        return STATES[read_json(Path(words[words.index("--out") + 1]) / STATUS)["state"]]
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
