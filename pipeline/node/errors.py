"""Errors of the node, in one line."""

from __future__ import annotations


class NodeError(ValueError):
    """The node cannot be set up, or cannot do what it was asked. The message is one line for the person who runs it."""


def in_one_line(error: BaseException) -> str:
    r"""An error's text on one line, at most 500 characters. Its type comes first unless the text was written for users.

    >>> in_one_line(ValueError("Expected a,\n but got b."))
    'Expected a, but got b.'
    >>> in_one_line(KeyError("x"))
    "KeyError: 'x'"
    """
    text = " ".join(str(error).split())
    own = isinstance(error, (ValueError, OSError)) and text
    return (text if own else f"{type(error).__name__}: {text}")[:500]
