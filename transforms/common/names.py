"""Names that look the same compare equal: accented letters have two spellings (macOS's file names, spreadsheets)."""

from __future__ import annotations

import unicodedata


def same_letters(text: str) -> str:
    r"""A name in the one spelling in which names are compared (NFC).

    >>> same_letters("Mu\u0308ller") == same_letters("M\u00fcller")
    True
    """
    return unicodedata.normalize("NFC", text)
