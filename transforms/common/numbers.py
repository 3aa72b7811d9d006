"""Checks of options that must be whole numbers."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def is_whole(value: Any, *, least: int = 1) -> bool:
    """Whether a value is an integer, of Python or NumPy, and at least ``least``; strings and booleans are not.

    >>> is_whole(2), is_whole(0), is_whole(1.5), is_whole("2"), is_whole(True)
    (True, False, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
