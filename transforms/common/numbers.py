"""Whole numbers: checks of options, and words for a count."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def is_whole(value: Any, *, least: int = 1) -> bool:
    """Whether a value is an integer, of Python or NumPy, and at least ``least``; strings and booleans are not.

    >>> is_whole(2), is_whole(0), is_whole(1.5), is_whole("2"), is_whole(True)
    (True, False, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def counted(number: int, what: str) -> str:
    """A number and the noun that it counts, for messages.

    >>> counted(1, "slice"), counted(2, "slice"), counted(0, "patient")
    ('1 slice', '2 slices', '0 patients')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
