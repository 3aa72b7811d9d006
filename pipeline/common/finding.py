"""A finding in the review of a stranger's files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something in a config that would be executed or opened.

    Attributes:
        file: path in the bundle.
        key: where in it, ``a#b#0``.
        kind: expression, import, target, mode, macro, path, YAML tag, duplicate key, logging, unreadable.
        text: what it says.
        known: whether the installed release has the same.
    """

    file: str
    key: str
    kind: str
    text: str
    known: bool
