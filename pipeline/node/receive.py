"""Receiving: C-ECHO, C-STORE and storage commitment. Success is said only when an object lies safely on disk."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
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
from ct_cncl.pipeline.node.errors import NodeError, in_one_line
from ct_cncl.pipeline.node.facts import Facts, Identity, read_object
from ct_cncl.pipeline.node.incoming import GuardedServer, PartFile, check_caller, write_incoming_to
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.rules import decide
from ct_cncl.pipeline.node.same_content import same_content
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool, content_digest
from ct_cncl.pipeline.node.tls import server_context
from ct_cncl.transforms.series.headers import CT_CLASSES

logger = logging.getLogger("ct_cncl.node")
SUCCESS, NO_ROOM, WRONG_CLASS, UNREADABLE, OTHER_CONTENT, NOT_AUTHORIZED = (
    0x0000,
    0xA700,
    0xA900,
    0xC000,
    0xC111,
    0x0124,
)
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_LOCKS = 64


@dataclass(frozen=True)
class Answer:
    """What a sender is told.

    Attributes:
        status: of C-STORE, PS3.4 annex B.
        comment: at most 64 characters, without names.
    """

    status: int
    comment: str = ""

    def dataset(self) -> Dataset:
        """As pynetdicom wants it."""
        answer = Dataset()
        answer.Status = self.status
        if self.comment:
            answer.ErrorComment = self.comment[:64]
        return answer


def readable_syntaxes() -> list[UID]:
    """Transfer syntaxes that ``denoise`` reads with the decoders installed here."""
    return [*_PLAIN, *(syntax for syntax in AllTransferSyntaxes if syntax not in _PLAIN and _is_decoded(syntax))]


def _is_decoded(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


class Receiver:
    """The side that is called.

    Args:
        settings: of the node.
        spool: where objects go.
        jobs: what they become part of.
        audit: where refusals are noted.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.spool, self.jobs, self.audit = settings, spool, jobs, audit
        self.counts: dict[str, int] = {"stored": 0, "again": 0, "refused": 0, "other": 0}
        self._carriers: dict[tuple[str, str], set[Any]] = {}
        self._guard = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._server: GuardedServer | None = None

    @property
    def port(self) -> int:
        """Where it listens; of use where the configuration says 0, any."""
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def refused_connections(self) -> int:
        """Connections that never became associations."""
        return 0 if self._server is None else self._server.refused

    @property
    def is_listening(self) -> bool:
        """Whether it does."""
        return self._server is not None

    def start(self) -> None:
        """Listen.

        Raises:
            NodeError: the port is taken, or the certificates are none.
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
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
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
        """Take no new associations; those that are open may end within some seconds."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        for assoc in server.active_associations:
            assoc.join(seconds)
            if assoc.is_alive():
                assoc.abort(block=False)

    def is_carried(self, study: str, series: str) -> bool:
        """Whether an association that brought some of a series is still open."""
        with self._guard:
            alive = {assoc for assoc in self._carriers.get((study, series), ()) if assoc.is_alive()}
            if alive:
                self._carriers[study, series] = alive
            else:
                self._carriers.pop((study, series), None)
            return bool(alive)

    def _stored(self, event: Any) -> Dataset:
        part: PartFile = event.request._dataset_file
        caller = str(event.assoc.requestor.ae_title).strip()
        address = str(event.assoc.requestor.address_info.address)
        try:
            part.close()
            answer = self._take(event, part, caller, address)
        except Exception as error:  # whatever it is: no success, nothing half-stored, the next object may be better
            logger.error("an object from %s was not stored: %s", caller, in_one_line(error))
            answer = Answer(NO_ROOM if isinstance(error, OSError) or "disk" in str(error) else UNREADABLE, "not stored")
        if answer.status != SUCCESS:
            self.counts["refused"] += 1
            logger.warning("refused an object from %s (%s): 0x%04X %s", caller, address, answer.status, answer.comment)
        return answer.dataset()

    def _take(self, event: Any, part: PartFile, caller: str, address: str) -> Answer:
        limits = self.settings.limits
        if part.failure == "large":
            return Answer(NO_ROOM, f"more than {limits.object_bytes} bytes in one object")
        if part.failure or not self.spool.has_room(limits.free_bytes):
            return Answer(NO_ROOM, "the disk is full")
        try:
            identity, facts = read_object(part.path)
        except NodeError as error:
            return Answer(UNREADABLE, str(error))
        told = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        if told != (identity.uid, identity.sop_class):
            return Answer(WRONG_CLASS, "command and data set name different objects")
        if identity.sop_class not in CT_CLASSES:
            return self._put_away(part, identity)
        if facts.modality != "CT":
            return Answer(WRONG_CLASS, f"a CT image of modality {facts.modality or 'unknown'}")
        if decide(self.settings.rules, facts, caller).action.do == "refuse":
            return Answer(NOT_AUTHORIZED, "refused by a rule")
        with self._locks[hash(identity.uid) % _LOCKS]:
            answer = self._keep(part, identity, facts, caller, address)
        with self._guard:
            self._carriers.setdefault((identity.study, identity.series), set()).add(event.assoc)
        return answer

    def _put_away(self, part: PartFile, identity: Identity) -> Answer:
        """What is no CT, where the configuration says so: kept for as long as results are, and nothing is made of it."""
        self.spool.keep(
            part.path, self.spool.place_of(identity.series, identity.uid, "").replace("objects/", "others/")
        )
        self.counts["other"] += 1
        return Answer(SUCCESS)

    def _keep(self, part: PartFile, identity: Identity, facts: Facts, caller: str, address: str) -> Answer:
        digest = content_digest(part.path)
        database = self.jobs.database
        row = database.row("SELECT digest, path FROM objects WHERE uid = ?", identity.uid)
        if row is not None:
            return self._again(part, identity, digest, row["digest"], row["path"], caller, address)
        limits = self.settings.limits
        held = database.row(
            "SELECT (SELECT COUNT(*) FROM objects WHERE study = ? AND series = ?), "
            "(SELECT COALESCE(SUM(size), 0) FROM objects WHERE patient = ? AND path IS NOT NULL)",
            identity.study, identity.series, identity.patient,
        )  # fmt: skip
        size = part.path.stat().st_size
        if held is not None and (held[0] >= limits.series_objects or held[1] + size > limits.patient_bytes):
            return Answer(NO_ROOM, "too many objects of this series or bytes of this patient")
        place = self.spool.place_of(identity.series, identity.uid, digest)
        self.spool.keep(part.path, place)
        self.jobs.add_object(identity, facts, digest=digest, path=place, size=size, sender=caller, address=address)
        self.counts["stored"] += 1
        return Answer(SUCCESS)

    def _again(
        self, part: PartFile, identity: Identity, digest: str, known: str, path: str | None, caller: str, address: str
    ) -> Answer:
        """An object that came before: stored once; what retention has removed is stored again, for whoever sends it again."""
        if digest != known and not (path and same_content(part.path, self.spool.folder / path)):
            self.audit.say(
                "other content refused", study=identity.study, series=identity.series, instance=identity.uid, sender=caller, address=address
            )  # fmt: skip
            return Answer(OTHER_CONTENT, "another object has this SOP Instance UID")
        if path is None:
            place = self.spool.place_of(identity.series, identity.uid, digest)
            self.spool.keep(part.path, place)
            with self.jobs.database.change() as change:
                change.execute("UPDATE objects SET path = ? WHERE uid = ?", (place, identity.uid))
        self.counts["again"] += 1
        return Answer(SUCCESS)

    def _promised(self, event: Any) -> tuple[int, None]:
        caller = str(event.assoc.requestor.ae_title).strip()
        return commitment.accept(self.settings, self.jobs.database, caller, event), None

    def _reported(self, event: Any) -> tuple[int, None]:
        return commitment.take_report(self.jobs.database, event.event_information, event.event_type), None
