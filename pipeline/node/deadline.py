"""A time limit for a whole exchange with a peer. A socket timeout covers one operation, so a peer that answers byte by byte never hits it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

_open: set[Deadline] = set()


def cut_all() -> None:
    """Cut every connection that a deadline watches, because the program is ending."""
    for limit in list(_open):
        limit._cut()


class Deadline:
    """Cuts a connection when its time is up. Whatever is waiting on the connection then fails.

    Args:
        seconds: the limit, from the beginning of the block.

    >>> with Deadline(60) as limit:
    ...     limit.is_over
    False
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over = threading.Event()
        self._stream: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._until = time.monotonic() + self.seconds
        _open.add(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _open.discard(self)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._until

    @property
    def has_cut(self) -> bool:
        """Whether the time ran out before the block ended, so that a watched connection was cut."""
        return self._over.is_set()

    def watch(self, stream: socket.socket | None) -> None:
        """Watch a connection that has just been opened: cut it when the time is up, or now if it is up already."""
        self._stream = stream
        if self._over.is_set():
            self._cut()

    def _cut(self) -> None:
        self._over.set()
        stream = self._stream
        if stream is not None:
            with suppress(OSError):  # closed already
                stream.shutdown(socket.SHUT_RDWR)
