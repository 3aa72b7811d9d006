"""Text for a terminal. File names come from strangers, and a terminal obeys control characters."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm


def shown(text: str) -> str:
    r"""Text that does nothing but show: control characters, bytes that are no text and changes of direction are escaped.

    >>> shown("a\x1b]0;title\x07\nb")
    'a\\x1b]0;title\\x07\\nb'
    >>> shown("f\udcfcr")
    'f\\xfcr'
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte of a file's name that is no text
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def say(*lines: str, error: bool = False) -> None:
    """Print lines above any progress bar, as far as the terminal's encoding goes.

    A terminal that is gone or cannot show a letter ends nothing.

    Args:
        lines: what breaks one is escaped; none print nothing.
        error: to standard error.
    """
    if not lines:
        return
    stream: TextIO = sys.stderr if error else sys.stdout
    text = "\n".join(map(shown, lines))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
        stream.flush()
    except (OSError, ValueError):  # closed, or a pipe whose reader has left
        return
