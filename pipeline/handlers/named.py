"""Handlers that a config defines under a name of their own."""

from __future__ import annotations

from typing import Any


def named(handler: Any) -> Any:
    """``handler`` itself, for a list of handlers whose other entries define theirs in place.

    MONAI's ``check_properties`` looks for a ``_target_`` in every entry and fails on a reference.

    Args:
        handler: a reference, ``"@ema"``.
    """
    return handler
