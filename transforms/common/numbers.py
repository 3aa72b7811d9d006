"""Whole numbers, as options ask for them."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def is_whole(value: Any, *, least: int = 1) -> bool:
    """Whether a value is a whole number of at least ``least``: of Python's or NumPy's, but neither a text nor a truth value.

    >>> is_whole(2), is_whole(0), is_whole(1.5), is_whole("2"), is_whole(True)
    (True, False, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
