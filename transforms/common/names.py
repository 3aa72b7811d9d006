"""Comparison of names: Unicode has two encodings of accented letters (macOS file names use the decomposed one)."""

from __future__ import annotations

import unicodedata


def same_letters(text: str) -> str:
    r"""Normalise a name (NFC), so that names that look the same compare equal.

    >>> same_letters("Mu\u0308ller") == same_letters("M\u00fcller")
    True
    """
    return unicodedata.normalize("NFC", text)
