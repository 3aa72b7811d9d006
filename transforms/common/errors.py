"""Errors whose message is one line for the user."""

from __future__ import annotations


class DataError(ValueError):
    """A data set cannot be used; the message is one line: what was expected, what came, what to do."""


class OutputError(OSError):
    """An output cannot be written; the message is one line and says what is left."""
