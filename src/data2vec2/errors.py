"""Errors that are the user's to mend: they are printed without a traceback."""


class UserError(Exception):
    """Something the user gave can't be used; the message says what was found, where, and what to do (exit code 1)."""


class UsageError(ValueError):
    """An option, argument or field has a value that can't be; the message names it (exit code 2)."""
