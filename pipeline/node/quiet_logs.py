"""Logging in single lines, without tracebacks, pixels or names, even from libraries."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

from ct_cncl.pipeline.node.errors import in_one_line

logger = logging.getLogger("ct_cncl.node")
_LIBRARIES = ("pynetdicom", "pydicom", "uvicorn", "asyncio", "concurrent", "PIL")


class _OneLine(logging.Filter):
    """Replaces an exception by its text. Libraries may quote data sets, so only their errors pass, by type or without values."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.name.split(".")[0] in _LIBRARIES:
            if record.levelno < logging.ERROR:
                return False
            told = record.args if not isinstance(record.msg, BaseException) else record.msg
            kind = type(error or told).__name__ if isinstance(error or told, BaseException) else ""
            record.msg, record.args = (f"{record.name.split('.')[0]}: {kind or _first(record)}", None)
        elif error is not None:
            record.msg, record.args = f"{record.getMessage()}: {in_one_line(error)}", None
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def _first(record: logging.LogRecord) -> str:
    return " ".join(str(record.msg).split())[:120]


def set_up_logs() -> None:
    """Send the node's log to standard error, where systemd's journal can read it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(_OneLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.ERROR)
        library.handlers[:] = []
        library.propagate = True
    warnings.simplefilter("ignore")
    threading.excepthook = _thread_failed


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        logger.error("a connection's thread ended: %s", type(failed.exc_value).__name__)
