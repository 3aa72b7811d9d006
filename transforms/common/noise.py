"""What libraries say besides our own messages: nothing a user could act on, and values of tags, UIDs among them."""

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
    """No traceback of TensorBoard's writer: what stops it is raised where the next event is written."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)


def quieten() -> None:
    """Keep warnings of readers and drawers from the terminal, in this process and from now on; their errors are still raised."""
    for name in _LOUD:
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ct_cncl\.transforms\.series")  # whom some of them say it is who warns
    threading.excepthook = _quiet_threads
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # the head of a NPY file is parsed as Python


@contextmanager
def quiet() -> Iterator[None]:
    """As :func:`quieten`, for as long as the block lasts."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    with warnings.catch_warnings():
        quieten()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
