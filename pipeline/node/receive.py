"""Receiving: C-ECHO, C-STORE and storage commitment. Success is returned only once an object is safely on disk."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from ct_cncl.pipeline.node import commitment
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.incoming import GuardedServer, check_caller, drop_unfinished, write_incoming_to
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool
from ct_cncl.pipeline.node.store import Storing
from ct_cncl.pipeline.node.tls import server_context
from ct_cncl.transforms.series.headers import CT_CLASSES

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_SUCCESS = 0x0000
_PARTING_S = 1.0


def readable_syntaxes() -> list[UID]:
    """Transfer syntaxes that ``denoise`` can read with the installed decoders."""
    return [*_PLAIN, *(syntax for syntax in AllTransferSyntaxes if syntax not in _PLAIN and _is_decoded(syntax))]


def _is_decoded(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


class Receiver:
    """The DICOM server.

    Args:
        settings: the node's settings.
        spool: where objects are stored.
        jobs: the queue, which gets the objects.
        audit: where refusals are noted.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.spool, self.jobs = settings, spool, jobs
        self.storing = Storing(settings, spool, jobs, audit)
        self._carriers: dict[tuple[str, str], set[Any]] = {}
        self._guard = threading.Lock()
        self._server: GuardedServer | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, which the system chooses if the configuration says 0."""
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def refused_connections(self) -> int:
        """Connections that never became associations."""
        return 0 if self._server is None else self._server.refused

    @property
    def is_listening(self) -> bool:
        """Whether the server is running."""
        return self._server is not None

    def start(self) -> None:
        """Start listening.

        Raises:
            NodeError: the port is taken, or the certificates cannot be loaded.
        """
        settings = self.settings
        write_incoming_to(self.spool.incoming, settings.limits.object_bytes)
        ae = AE(settings.aet)
        ae.maximum_pdu_size = settings.limits.pdu_bytes
        ae.maximum_associations = settings.limits.associations
        ae.require_called_aet = True
        ae.network_timeout, ae.dimse_timeout = settings.limits.stall_s, settings.limits.stall_s
        ae.acse_timeout = min(settings.limits.stall_s, 30.0)
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        syntaxes = readable_syntaxes()
        classes = list(CT_CLASSES)
        if settings.others == "store":
            classes += [str(known.abstract_syntax) for known in AllStoragePresentationContexts]  # type: ignore[misc]
        for name in dict.fromkeys(map(str, classes)):
            ae.add_supported_context(name, syntaxes)
        handlers = [
            (evt.EVT_REQUESTED, check_caller, [settings.senders]),
            (evt.EVT_CONN_CLOSE, drop_unfinished),
            (evt.EVT_C_ECHO, lambda _: _SUCCESS),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_N_ACTION, self._promised),
            (evt.EVT_N_EVENT_REPORT, self._reported),
        ]
        try:
            self._server = GuardedServer(
                ae,
                (settings.host, settings.port),
                settings.aet,
                ae.supported_contexts,
                server_context(settings.tls) if settings.tls else None,
                evt_handlers=handlers,
                settings=settings,
            )
        except OSError as error:
            raise NodeError(
                f"Expected to listen on {settings.host} port {settings.port}, but got: {error.strerror or error}. Choose another port."
            ) from error
        ae._servers.append(self._server)
        threading.Thread(
            target=self._server.serve_forever, name="dicom", kwargs={"poll_interval": 0.2}, daemon=True
        ).start()

    def stop(self, seconds: float = 5.0) -> None:
        """Accept no new associations. Those that are open have ``seconds`` to end."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        until = time.monotonic() + seconds
        for assoc in server.active_associations:
            if assoc.is_established:  # the others have nothing to finish
                assoc.join(max(until - time.monotonic(), 0.01))
            if assoc.is_established:
                assoc.abort(block=False)
        until = time.monotonic() + _PARTING_S
        while server.active_associations and time.monotonic() < until:
            time.sleep(0.05)
        for assoc in server.active_associations:  # in the middle of a PDU: the process would wait for the rest of it
            stream = assoc.dul.socket.socket if assoc.dul.socket else None
            if stream is not None:
                with suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)

    def is_carried(self, study: str, series: str) -> bool:
        """Whether an association that brought objects of a series is still open."""
        with self._guard:
            alive = {key: {assoc for assoc in found if assoc.is_alive()} for key, found in self._carriers.items()}
            self._carriers = {key: found for key, found in alive.items() if found}
            return (study, series) in self._carriers

    def _stored(self, event: Any) -> Dataset:
        """Handle C-STORE. On any failure, report no success, leave nothing half-stored, and stay ready for the next object."""
        requestor = event.assoc.requestor
        caller, address = str(requestor.ae_title).strip(), str(requestor.address_info.address)
        named = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        answer, series = self.storing.take(event.request._dataset_file, named, caller, address)
        if series is not None:
            with self._guard:
                self._carriers.setdefault(series, set()).add(event.assoc)
        return answer.dataset()

    def _promised(self, event: Any) -> tuple[int, None]:
        caller = str(event.assoc.requestor.ae_title).strip()
        return commitment.accept(self.settings, self.jobs.database, caller, event), None

    def _reported(self, event: Any) -> tuple[int, None]:
        return commitment.take_report(self.jobs.database, event.event_information, event.event_type), None
