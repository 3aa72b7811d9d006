"""What goes wrong in the node, said in one line."""

from __future__ import annotations


class NodeError(ValueError):
    """A node that cannot be set up or asked for something; the message is one line for whoever runs it."""


def in_one_line(error: BaseException) -> str:
    r"""An error's text in one line, at most 500 characters; its kind before it where it was not written for users.

    >>> in_one_line(ValueError("Expected a,\n but got b."))
    'Expected a, but got b.'
    >>> in_one_line(KeyError("x"))
    "KeyError: 'x'"
    """
    text = " ".join(str(error).split())
    own = isinstance(error, (ValueError, OSError)) and text
    return (text if own else f"{type(error).__name__}: {text}")[:500]
