"""A finding in the review of files from an untrusted source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something in a config that would be executed or opened.

    Attributes:
        file: path of the file in the bundle.
        key: position in the file, such as ``a#b#0``.
        kind: expression, import, target, mode, macro, path, YAML tag, duplicate key, logging, unreadable.
        text: the text that was found.
        known: whether the installed release contains the same.
    """

    file: str
    key: str
    kind: str
    text: str
    known: bool
