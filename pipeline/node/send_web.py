"""STOW-RS (PS3.18 section 10.5) with the standard library: several objects per request, read from disk while being sent."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from ct_cncl.pipeline.node.deadline import Deadline
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.send_dimse import turn_over
from ct_cncl.pipeline.node.settings import Destination
from ct_cncl.pipeline.node.tls import client_context

_AT_ONCE_BYTES, _AT_ONCE = 32 * 2**20, 64
_TIMEOUT_S = 120.0
_FAILED, _UID = "00081198", "00081155"


def send_by_stow(destination: Destination, files: list[dict[str, Any]], accepted: Callable[[str], None]) -> None:
    """Store results at a DICOMweb service without re-encoding them, for at most the destination's ``turn_s``.

    Args:
        destination: a destination with a URL.
        files: "path" and "uid" of each file.
        accepted: called with the UID of each object that the service has stored.

    Raises:
        NodeError: the service cannot be reached, refuses, fails to store an object, or has not taken all objects when the turn is over.
    """
    until, taken = time.monotonic() + destination.turn_s, 0
    for batch in _batches(files):
        left = until - time.monotonic()
        if left <= 0:
            raise turn_over(taken, len(files), destination)
        refused = _posted(destination, batch, left)
        taken += len(batch)
        for entry in batch:
            if entry["uid"] not in refused:
                accepted(entry["uid"])
        if refused:
            raise NodeError(f"Expected {destination.url} to store {len(batch)} objects, but it refused {len(refused)}.")


def _batches(files: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in files:
        own = entry["path"].stat().st_size
        if batch and (size + own > _AT_ONCE_BYTES or len(batch) >= _AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += own
    if batch:
        yield batch


def _posted(destination: Destination, batch: list[dict[str, Any]], within_s: float) -> set[str]:
    """Post one batch, within ``within_s`` seconds, and return the UIDs that the service refused."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + entry["path"].stat().st_size + 2 for entry in batch) + len(tail)

    def body() -> Iterator[bytes]:
        for entry in batch:
            yield head
            with entry["path"].open("rb") as stream:
                while chunk := stream.read(2**20):
                    yield chunk
            yield b"\r\n"
        yield tail

    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(length),
        "Accept": "application/dicom+json",
        **destination.headers,
    }
    connection, path = _connection(destination, within_s)
    with Deadline(within_s) as limit:
        try:
            connection.connect()
            limit.watch(connection.sock)
            connection.request("POST", f"{path}/studies", body(), headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read(2**24)
        except (OSError, http.client.HTTPException) as error:
            got = f"no complete answer within {within_s:.0f} s" if limit.has_cut else error or type(error).__name__
            raise NodeError(f"Expected {destination.url} to answer, but got: {got}.") from error
        finally:
            connection.close()
    if limit.has_cut:  # then the content may be cut short
        raise NodeError(f"Expected {destination.url} to answer within {within_s:.0f} s, but it did not.")
    if status == http.HTTPStatus.OK and not _refused(content):
        return set()
    refused = _refused(content) if status in (200, 202, 409) else set()
    if not refused:
        raise NodeError(f"Expected {destination.url} to store objects, but got HTTP status {status}.")
    return refused


def _connection(destination: Destination, within_s: float) -> tuple[http.client.HTTPConnection, str]:
    parts = urlsplit(destination.url)
    host, timeout = parts.hostname or "", min(_TIMEOUT_S, within_s)
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=timeout), parts.path
    context = client_context(destination.tls) if destination.tls else ssl.create_default_context()
    return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context), parts.path


def _refused(content: bytes) -> set[str]:
    """UIDs in the answer's Failed SOP Sequence; empty if the answer is not DICOM JSON."""
    try:
        answer = json.loads(content or b"{}")
        items = answer.get(_FAILED, {}).get("Value", [])
        return {item[_UID]["Value"][0] for item in items}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        return set()
