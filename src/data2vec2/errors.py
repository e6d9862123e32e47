"""Errors that are the user's to mend: they are printed without a traceback; and being asked to stop."""

import signal


class UserError(Exception):
    """Something the user gave can't be used; the message says what was found, where, and what to do (exit code 1)."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end where nothing is to be saved first; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class UsageError(ValueError):
    """An option, argument or field has an invalid value; the message names it (exit code 2)."""
