"""Storing incoming objects. Each is checked, compared with known objects, written and noted; only then is success returned."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass

from pydicom.dataset import Dataset

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.errors import NodeError, in_one_line
from ct_cncl.pipeline.node.facts import Facts, Identity, read_object
from ct_cncl.pipeline.node.incoming import PartFile
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.rules import decide
from ct_cncl.pipeline.node.same_content import same_content
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool, is_full, object_digest
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
_LOCKS = 64


@dataclass(frozen=True)
class Answer:
    """What a sender is told.

    Attributes:
        status: C-STORE status, PS3.4 annex B.
        comment: at most 64 characters, without names.
    """

    status: int
    comment: str = ""

    def dataset(self) -> Dataset:
        """The answer as a data set for pynetdicom."""
        answer = Dataset()
        answer.Status = self.status
        if self.comment:
            answer.ErrorComment = self.comment[:64]
        return answer


@dataclass(frozen=True)
class _Arrival:
    """An object that was read successfully, and who sent it."""

    part: PartFile
    identity: Identity
    facts: Facts
    caller: str
    address: str


class Storing:
    """Stores incoming objects; safe to use from several threads.

    Args:
        settings: the node's settings.
        spool: where objects are stored.
        jobs: the queue, which gets the objects.
        audit: where refusals are noted.

    Attributes:
        counts: number of C-STORE requests since the start, by answer.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.spool, self.jobs, self.audit = settings, spool, jobs, audit
        self.counts: dict[str, int] = {"stored": 0, "again": 0, "refused": 0, "other": 0}
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def take(
        self, part: PartFile, named: tuple[str, str], caller: str, address: str
    ) -> tuple[Answer, tuple[str, str] | None]:
        """Store an object, or say why not.

        Args:
            part: the received file.
            named: SOP instance UID and SOP class UID in the command.
            caller: calling AE title.
            address: the caller's IP address.

        Returns:
            The answer, and the object's study and series UIDs if it was stored for denoising, otherwise None.
        """
        series = None
        try:
            part.close()
            answer = self._refused(part) or self._looked_at(part, named, caller, address)
            if isinstance(answer, _Arrival):
                series = (answer.identity.study, answer.identity.series)
                with self._locks[hash(answer.identity.uid) % _LOCKS]:  # two senders may send the same object at once
                    answer = self._kept(answer)
        except Exception as error:  # nothing that comes from outside may end the association's thread
            logger.error("an object from %s was not stored: %s", caller, in_one_line(error))
            answer = Answer(
                NO_ROOM if isinstance(error, OSError) or is_full(error) else UNREADABLE, "it was not stored"
            )
        finally:
            part.discard()
        if answer.status != SUCCESS:
            series = None
            self.counts["refused"] += 1
            logger.warning("refused an object from %s (%s): 0x%04X %s", caller, address, answer.status, answer.comment)
        return answer, series

    def _refused(self, part: PartFile) -> Answer | None:
        if part.failure == "large":
            return Answer(NO_ROOM, f"more than {self.settings.limits.object_bytes} bytes in one object")
        if part.failure or not self.spool.has_room(self.settings.limits.free_bytes):
            return Answer(NO_ROOM, "the disk is full")
        return None

    def _looked_at(self, part: PartFile, named: tuple[str, str], caller: str, address: str) -> Answer | _Arrival:
        try:
            identity, facts = read_object(part.path)
        except NodeError as error:
            return Answer(UNREADABLE, str(error))
        if named != (identity.uid, identity.sop_class):
            return Answer(WRONG_CLASS, "command and data set name different objects")
        if identity.sop_class not in CT_CLASSES:
            return self._put_away(part, identity)
        if facts.modality != "CT":
            return Answer(WRONG_CLASS, f"a CT image of modality {facts.modality or 'unknown'}")
        if decide(self.settings.rules, facts, caller).action.do == "refuse":
            return Answer(NOT_AUTHORIZED, "refused by a rule")
        return _Arrival(part, identity, facts, caller, address)

    def _put_away(self, part: PartFile, identity: Identity) -> Answer:
        """Store an object that is not CT, as the setting ``others`` asks. It is kept for as long as results, and not used."""
        place = self.spool.place_of(identity.series, identity.uid, object_digest(part.path))
        self.spool.keep(part.path, place.replace("objects/", "others/", 1))
        self.counts["other"] += 1
        return Answer(SUCCESS)

    def _kept(self, new: _Arrival) -> Answer:
        identity, limits = new.identity, self.settings.limits
        digest = object_digest(new.part.path)
        known = self.jobs.database.row("SELECT digest, path FROM objects WHERE uid = ?", identity.uid)
        if known is not None:
            return self._again(new, digest, known["digest"], known["path"])
        held = self.jobs.database.row(
            "SELECT (SELECT COUNT(*) FROM objects WHERE study = ? AND series = ?), "
            "(SELECT COALESCE(SUM(size), 0) FROM objects WHERE patient = ? AND path IS NOT NULL)",
            identity.study, identity.series, identity.patient,
        )  # fmt: skip
        size = new.part.path.stat().st_size
        if held is not None and (held[0] >= limits.series_objects or held[1] + size > limits.patient_bytes):
            return Answer(NO_ROOM, "too many objects of this series or bytes of this patient")
        place = self.spool.place_of(identity.series, identity.uid, digest)
        self.spool.keep(new.part.path, place)
        self.jobs.add_object(
            identity, new.facts, digest=digest, path=place, size=size, sender=new.caller, address=new.address
        )
        self.counts["stored"] += 1
        return Answer(SUCCESS)

    def _again(self, new: _Arrival, digest: str, known: str, path: str | None) -> Answer:
        """Handle an object that was received before. It is stored again only if retention has removed it."""
        identity = new.identity
        if digest != known and not (path and same_content(new.part.path, self.spool.folder / path)):
            self.audit.say(
                "other content refused", study=identity.study, series=identity.series, instance=identity.uid, sender=new.caller,
                address=new.address,
            )  # fmt: skip
            return Answer(OTHER_CONTENT, "another object has this SOP Instance UID")
        if path is None or not (self.spool.folder / path).is_file():
            # Use a new file name, since retention may be about to remove the old file.
            place = self.spool.place_of(identity.series, identity.uid, f"{uuid.uuid4().hex[:8]}-{digest}")
            self.spool.keep(new.part.path, place)
            with self.jobs.database.change() as change:
                change.execute(
                    "UPDATE objects SET path = ?, received = ? WHERE uid = ?", (place, time.time(), identity.uid)
                )
        self.counts["again"] += 1
        return Answer(SUCCESS)
