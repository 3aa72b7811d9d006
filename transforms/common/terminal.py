"""Text for a terminal: file names come from untrusted sources, and a terminal obeys control characters."""

from __future__ import annotations

import sys
from typing import TextIO


def shown(text: str) -> str:
    r"""Escape control characters, undecodable bytes and changes of writing direction, so that a terminal only shows the text.

    >>> shown("a\x1b]0;title\x07\nb")
    'a\\x1b]0;title\\x07\\nb'
    >>> shown("f\udcfcr")
    'f\\xfcr'
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python represents an undecodable byte of a file name
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def say(*lines: str, error: bool = False) -> None:
    """Print lines above any progress bar.

    Characters that the terminal's encoding lacks are escaped, and a closed terminal is ignored: neither stops a run.

    Args:
        lines: line breaks within a line are escaped; without lines, nothing is printed.
        error: print to standard error.
    """
    if not lines:
        return
    from tqdm import tqdm  # not above: `ct-cncl --help` need not wait for it

    stream: TextIO = sys.stderr if error else sys.stdout
    text = "\n".join(map(shown, lines))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
        stream.flush()
    except (OSError, ValueError):  # closed, or a pipe whose reader has left
        return
