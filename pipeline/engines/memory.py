"""Errors with advice if a network does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CPU_SAYS = ("can't allocate memory", "not enough memory")


class MemoryShortageError(ValueError):
    """A step does not fit into memory; the message is one line and names the settings to change."""


@contextmanager
def naming_settings(what: str, advice: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors, on a GPU or the CPU, into a one-line error with advice.

    Args:
        what: what should have fitted, for example "a training step of 16 patches".
        advice: a sentence that names the settings to change.

    Raises:
        MemoryShortageError: instead of torch's error.

    >>> with naming_settings("a step", "Lower batch_size."):
    ...     raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    Traceback (most recent call last):
    ct_cncl.pipeline.engines.memory.MemoryShortageError: Expected a step to fit into memory, but got: CUDA out of memory. Lower batch_size.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in text for words in _CPU_SAYS):
            raise
        first = text.strip().split(". ")[0].splitlines()[0].rstrip(".")
        raise MemoryShortageError(f"Expected {what} to fit into memory, but got: {first}. {advice}") from error
