"""The command `data2vec2`, also `python -m data2vec2`: a signal ends it in order, also while the rest is imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

CATCHABLE = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
AGAIN = 75
"""Exit code of what can be run again with `--resume`."""


def main() -> int:
    """Run the command line; nothing has begun until it handles signals itself."""
    for number in (getattr(signal, name) for name in CATCHABLE if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _stop)
    from data2vec2 import cli

    return cli.main()


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """End at once, with 75 for a run that can be resumed as well as before."""
    os.write(2, f"data2vec2: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(AGAIN if "--resume" in sys.argv else 128 + number)


if __name__ == "__main__":
    sys.exit(main())
