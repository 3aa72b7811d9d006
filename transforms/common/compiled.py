"""Numba's compiler, with a fallback for systems on which it cannot cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, cache: bool, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a function to run without the global interpreter lock, and cache the machine code if possible.

    In a read-only installation without a writable home folder (as in many containers) Numba finds no place for its cache and
    raises an error. Then each process compiles for itself, which takes a few seconds. ``NUMBA_CACHE_DIR`` sets the cache folder.

    Args:
        cache: whether to keep the machine code for later processes.
        options: further options of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=cache, **options)(function)
        except (RuntimeError, OSError):  # "no locator available"
            if not cache:
                raise
            return numba.njit(nogil=True, cache=False, **options)(function)

    return decorate
