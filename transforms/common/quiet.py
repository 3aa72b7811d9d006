"""What the libraries that read files say of them: values of tags, which may be a patient's. Nobody needs to see that."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_READERS = ("pydicom", "nibabel", "nibabel.global", "tifffile", "dicomanonymizer")


@contextmanager
def quiet_readers() -> Iterator[None]:
    """No warnings and no log of the libraries that read scans; what is wrong with a file, this package says in its own words."""
    loggers = [logging.getLogger(name) for name in _READERS]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        for name in _READERS:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before):
                logger.disabled = disabled
