"""Names that are the same to a reader: letters with accents have two spellings, one of macOS's file names, one of spreadsheets."""

from __future__ import annotations

import unicodedata


def same_letters(text: str) -> str:
    r"""A name in the one spelling in which names are compared (NFC).

    >>> same_letters("Mu\u0308ller") == same_letters("M\u00fcller")
    True
    """
    return unicodedata.normalize("NFC", text)
