"""Limits on callers that apply before their messages are parsed: addresses, connections, PDU and message sizes, stalls, TLS.

pynetdicom trusts the length that a PDU states, runs the TLS handshake in the accepting thread, waits forever within a PDU, and writes
objects to the system's temporary folder, where a full disk ends the thread. This module fixes each of these.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pynetdicom import _config, dimse_messages
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from ct_cncl.pipeline.node.settings import Limits, NodeSettings, Sender
from ct_cncl.pipeline.node.spool import is_full

logger = logging.getLogger("ct_cncl.node")
_LARGEST_MESSAGE = 16 * 2**20
"""Largest message that is held in memory, in bytes: a command, or the data set of anything but C-STORE."""
_PDU_KINDS = [bytes([kind]) for kind in range(1, 8)]
"""First bytes of PDUs (PS3.8 section 9.3)."""


class PartFile:
    """The file of an object that is being received. Failures are remembered for the answer, not raised.

    Args:
        folder: where the file is written.
        limit: largest size in bytes; a larger object is dropped.

    Attributes:
        failure: "" while all is well; otherwise "large", "full" or "disk".
        size: bytes received.
        began: when the first bytes came, by the monotonic clock.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.part"
        self.limit, self.size, self.failure = limit, 0, ""
        self.began = time.monotonic()
        self._stream: Any = None
        try:
            self._stream = self.path.open("xb", buffering=2**18)
        except OSError as error:
            self._fail(error)

    @property
    def name(self) -> str:
        """The file's path, as a temporary file has it."""
        return str(self.path)

    @property
    def file(self) -> PartFile:
        """The object that pynetdicom flushes after each piece; see :meth:`flush`."""
        return self

    def flush(self) -> None:
        """Do nothing: :meth:`close` flushes once, at the end."""

    def write(self, data: bytes) -> int:
        """Append a piece."""
        self.size += len(data)
        if self.size > self.limit and not self.failure:
            self._drop("large")
        if not self.failure:
            try:
                self._stream.write(data)
            except OSError as error:
                self._fail(error)
        return len(data)

    def close(self) -> None:
        """Write what is left in memory."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            try:
                stream.close()
            except OSError as error:
                self._fail(error)

    def discard(self) -> None:
        """Remove the file, unless it has been renamed."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> None:
        self._drop("full" if is_full(error) else "disk")

    def _drop(self, failure: str) -> None:
        self.failure = failure
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.raw.close()
            self.path.unlink(missing_ok=True)
        except OSError:
            return


def write_incoming_to(folder: Path, limit: int) -> None:
    """Make pynetdicom write incoming objects to ``folder``, at most ``limit`` bytes each. This holds for the whole process."""
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    dimse_messages.NamedTemporaryFile = lambda **_: PartFile(folder, limit)  # type: ignore[assignment]


def allowed(senders: tuple[Sender, ...], address: str, aet: str | None = None) -> bool:
    """Whether a sender may call from an address, and under a calling AE title if one is given."""
    place = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(place, ipaddress.IPv6Address) and place.ipv4_mapped:
        place = place.ipv4_mapped
    return any(
        (aet is None or sender.aet == aet.strip()) and any(place in network for network in sender.addresses)
        for sender in senders
    )


class GuardedServer(ThreadedAssociationServer):
    """A server that refuses unknown addresses and too many connections, and runs each TLS handshake in its own thread.

    Args:
        arguments: passed on to the base class, as are the options.
        settings: the node's settings.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, settings: NodeSettings, **options: Any) -> None:
        self.settings = settings
        self.refused = 0
        self._shaking = 0
        self._count = threading.Lock()
        super().__init__(*arguments, request_handler=_Handler, **options)  # type: ignore[misc]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and give its socket a timeout."""
        assert self.socket is not None
        client, address = self.socket.accept()
        client.settimeout(self.settings.limits.stall_s)
        return client, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether to accept a connection at all."""
        open_now = len(self.active_associations) + self._shaking
        if allowed(self.settings.senders, client_address[0]) and open_now < self.settings.limits.connections:
            return True
        self.refused += 1
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Run the TLS handshake if TLS is configured, and begin the association."""
        try:
            if self.ssl_context is not None:
                with self._count:
                    self._shaking += 1
                try:
                    request = self.ssl_context.wrap_socket(request, server_side=True)
                finally:
                    with self._count:
                        self._shaking -= 1
            self.finish_request(request, client_address)
        except (ssl.SSLError, OSError) as error:
            self.refused += 1
            reason = getattr(error, "reason", None) or type(error).__name__
            logger.warning("refused a connection from %s: %s", client_address[0], reason)
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log one line instead of a traceback."""
        logger.warning("a connection from %s failed", client_address[0])


class _Handler(RequestHandler):
    """Begins associations that stay within the limits."""

    server: GuardedServer

    def _create_association(self) -> Any:
        assoc = super()._create_association()
        stream = assoc.dul.socket
        assert stream is not None
        stream.recv = _limited(assoc, self.server.settings.limits)  # type: ignore[method-assign, assignment]
        return assoc


def _limited(assoc: Any, limits: Limits) -> Callable[[int], bytearray]:
    """A replacement for ``recv`` that refuses PDUs longer than agreed, messages that would fill memory, and peers that take too long.

    pynetdicom reads the six bytes of a PDU's header, then the rest. A socket timeout covers only one piece, so a peer that sends a byte
    a minute could hold an association forever. Of an unknown PDU type, pynetdicom reads only the header, logs it, and takes the next
    six bytes for another header, so that bytes that are not DICOM would fill the log.
    """
    opened = time.monotonic()
    is_head, unknown = True, 0

    def ended(reason: str) -> OSError:
        logger.warning("cut off %s: %s", assoc.requestor.address_info.address, reason)
        return OSError(reason)

    def limited(count: int) -> bytearray:
        nonlocal is_head, unknown
        now, message = time.monotonic(), assoc.dimse.message
        held = 0 if message is None else message.encoded_command_set.tell() + (message.data_set or _EMPTY).tell()
        if count > max(limits.pdu_bytes, 2**16) + 1024 or held > _LARGEST_MESSAGE:
            raise ended("a PDU or message longer than agreed")
        part = None if message is None else message._data_set_file
        if part is not None and now - part.began > limits.object_s:
            raise ended(f"an object that took more than {limits.object_s:g} s")
        if message is None and now - opened > limits.association_s:
            raise ended(f"an association that took more than {limits.association_s:g} s")
        try:
            piece = _read_within(assoc.dul.socket.socket, count, now + limits.stall_s)
        except TimeoutError:
            raise ended(f"a PDU that took more than {limits.stall_s:g} s") from None
        is_known = not is_head or piece[:1] in _PDU_KINDS
        is_head, unknown = not (is_head and is_known), unknown + (not is_known)
        if unknown > 1:  # the first is answered with an abort
            raise ended("bytes that are not DICOM")
        return piece

    return limited


def _read_within(stream: socket.socket, count: int, until: float) -> bytearray:
    """Read ``count`` bytes, or fewer if the peer closes the connection.

    Raises:
        TimeoutError: the bytes have not come by ``until`` (monotonic clock).
        OSError: the connection is broken.
    """
    whole = bytearray(count)
    view, have = memoryview(whole), 0
    while have < count:
        got = stream.recv_into(view[have:])
        if not got:
            break
        have += got
        if have < count and time.monotonic() > until:
            raise TimeoutError
    view.release()
    del whole[have:]
    return whole


class _Empty:
    def tell(self) -> int:
        return 0


_EMPTY = _Empty()


def drop_unfinished(event: Any) -> None:
    """Handle EVT_CONN_CLOSE: discard an object that was only partly received."""
    message = event.assoc.dimse.message
    part = None if message is None else message._data_set_file
    if part is not None:
        part.close()
        part.discard()


def check_caller(event: Any, senders: tuple[Sender, ...]) -> None:
    """Handle EVT_REQUESTED: reject callers that are not listed, permanently (calling AE title not recognized)."""
    request, address = event.assoc.requestor.primitive, event.assoc.requestor.address_info.address
    if not allowed(senders, address, request.calling_ae_title):
        logger.warning("refused an association from %s: its calling AE title is not listed for this address", address)
        event.assoc.acse.send_reject(0x01, 0x01, 0x03)
        event.assoc.kill()  # waits until the rejection is sent; the connection is closed after this handler
