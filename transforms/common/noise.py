"""Silences other libraries' warnings: users cannot act on them, and they may quote values of DICOM attributes such as UIDs."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOUD = (
    *("pydicom", "tifffile", "nibabel", "matplotlib", "fontTools", "onnxruntime", "openjpeg", "pylibjpeg", "imageio"),
    *("numpy", "scipy", "PIL"),
)


def _quiet_threads(args: threading.ExceptHookArgs) -> None:
    """Suppress the traceback of TensorBoard's writer thread: its error is raised again when the next event is written."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)


def quieten() -> None:
    """Silence the warnings of file readers and plotting libraries for the rest of this process; their errors are still raised."""
    for name in _LOUD:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ct_cncl\.transforms\.series")  # some libraries blame the calling module
    threading.excepthook = _quiet_threads
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # the header of an NPY file is parsed as Python


@contextmanager
def quiet() -> Iterator[None]:
    """Like :func:`quieten`, but only within the block."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    with warnings.catch_warnings():
        quieten()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
