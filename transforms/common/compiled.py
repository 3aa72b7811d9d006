"""Numba's compiler, which also works where it cannot cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, cache: bool, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: compiled without the global lock, and kept for the next process where there is a place for it.

    In a read-only installation without a home that can be written (containers) there is none, and Numba refuses; then each
    process compiles for itself, which takes it some seconds. ``NUMBA_CACHE_DIR`` names a place.

    Args:
        cache: keep it.
        options: of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=cache, **options)(function)
        except (RuntimeError, OSError):  # "no locator available"
            if not cache:
                raise
            return numba.njit(nogil=True, cache=False, **options)(function)

    return decorate
