"""Errors with a one-line message for the user."""

from __future__ import annotations


class DataError(ValueError):
    """A data set cannot be used; the one-line message says what was expected, what came and what to do."""


class OutputError(OSError):
    """An output cannot be written; the one-line message says what was left behind."""
