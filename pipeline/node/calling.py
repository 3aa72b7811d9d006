"""Calling a peer: an association that is released or aborted at the end, and what went wrong in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE

from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import Peer
from ct_cncl.pipeline.node.tls import client_context

_CONNECT_S, _ANSWER_S = 15.0, 120.0


@contextmanager
def called(ae: AE, peer: Peer, **options: Any) -> Iterator[Any]:
    """An association with a peer.

    Args:
        ae: with what it asks for.
        peer: who is called.
        options: of pynetdicom's ``associate``.

    Raises:
        NodeError: nobody answers there, or the peer refuses.
    """
    ae.connection_timeout, ae.acse_timeout = _CONNECT_S, _CONNECT_S
    ae.dimse_timeout, ae.network_timeout = _ANSWER_S, _ANSWER_S
    if peer.tls is not None:
        options["tls_args"] = (client_context(peer.tls), peer.host)
    where = f"{peer.aet} at {peer.host} port {peer.port}"
    try:
        assoc = ae.associate(peer.host, peer.port, ae_title=peer.aet, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise NodeError(f"Expected {where} to answer, but got: {error}.") from error
    if not assoc.is_established:
        if assoc.is_rejected:
            raise NodeError(f"Expected {where} to take this node's association, but it was refused.")
        wanted = bool(assoc.rejected_contexts)
        raise NodeError(f"Expected {where} to {'accept what is sent' if wanted else 'answer'}, but it does not.")
    try:
        yield assoc
    except BaseException:
        assoc.abort()
        raise
    if assoc.is_established:
        assoc.release()
