"""Calling a peer: an association that is always released or aborted, with errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, evt

from ct_cncl.pipeline.node.deadline import Deadline
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import Peer
from ct_cncl.pipeline.node.tls import client_context

_CONNECT_S, _ANSWER_S = 15.0, 120.0
_OPEN_S, _PARTING_S = 45.0, 5.0
"""Limits for opening an association, and for aborting one that has failed."""
WHOLE_S = 600.0
"""Default limit for a whole association."""


@contextmanager
def called(ae: AE, peer: Peer, *, within_s: float = WHOLE_S, **options: Any) -> Iterator[Any]:
    """An association with a peer, as a context manager.

    Args:
        ae: the calling application entity, with its requested contexts.
        peer: the peer to call.
        within_s: seconds for the whole association, even if the peer keeps sending small pieces. Then the connection is cut.
        options: passed on to pynetdicom's ``associate``.

    Raises:
        NodeError: nobody answers, the peer refuses, or the time is up.
    """
    ae.connection_timeout, ae.acse_timeout = _CONNECT_S, _CONNECT_S
    ae.dimse_timeout, ae.network_timeout = _ANSWER_S, _ANSWER_S
    if peer.tls is not None:
        options["tls_args"] = (client_context(peer.tls), peer.host)
    where = f"{peer.aet} at {peer.host} port {peer.port}"
    with Deadline(min(_OPEN_S, within_s)) as opening:
        handlers = [
            *options.pop("evt_handlers", ()),
            (evt.EVT_CONN_OPEN, lambda event: opening.watch(event.assoc.dul.socket.socket)),
        ]
        try:
            assoc = ae.associate(peer.host, peer.port, ae_title=peer.aet, evt_handlers=handlers, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise NodeError(f"Expected {where} to answer, but got: {error}.") from error
    if not assoc.is_established:
        if assoc.is_rejected:
            raise NodeError(f"Expected {where} to accept this node's association, but it was refused.")
        wanted = bool(assoc.rejected_contexts)
        raise NodeError(f"Expected {where} to {'accept what is sent' if wanted else 'answer'}, but it does not.")
    stream = assoc.dul.socket.socket if assoc.dul.socket else None
    with Deadline(within_s) as limit:
        limit.watch(stream)
        try:
            yield assoc
        except BaseException as error:
            with Deadline(_PARTING_S) as parting:  # the abort waits for a thread that may be stuck in a write
                parting.watch(stream)
                assoc.abort()
            if limit.has_cut and isinstance(error, (NodeError, ValueError, RuntimeError)):
                raise NodeError(f"Expected {where} to be done within {within_s:g} s, but it was not.") from error
            raise
        if assoc.is_established:
            assoc.release()
