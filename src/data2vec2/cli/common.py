"""What several verbs parse alike. Nothing here needs torch."""

from __future__ import annotations

import sys

FAILED, USAGE, ALARM, INTERRUPTED, ABORTED = 1, 2, 3, 75, 130
STATES = {"finished": 0, "planned": 0, "helped": 0, "diverged": ALARM, "collapsed": ALARM, "interrupted": INTERRUPTED}


def fail(message: str, code: int) -> int:
    """Print a message to stderr; returns the exit code."""
    print(f"data2vec2: {message}", file=sys.stderr)
    return code
