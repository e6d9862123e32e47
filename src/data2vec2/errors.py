"""Errors that are the user's to mend: they are printed without a traceback."""


class UserError(Exception):
    """Something the user gave can't be used; the message says what was found, where, and what to do (exit code 1)."""
