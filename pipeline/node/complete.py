"""Deciding when a series is complete, and what to do with it then."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.facts import Facts
from ct_cncl.pipeline.node.jobs import Job, Jobs
from ct_cncl.pipeline.node.receive import Receiver
from ct_cncl.pipeline.node.rules import Decision, decide
from ct_cncl.pipeline.node.settings import Complete, NodeSettings, Peer

logger = logging.getLogger("ct_cncl.node")
_PENDING = (0xFF00, 0xFF01)
_COUNT_S = 60.0
"""Limit for one query for a series' number of objects."""


def is_complete(quiet: float, *, carried: bool, have: int, expected: int | None, limits: Complete) -> bool:
    """Whether a series has received all the objects that will come.

    Args:
        quiet: seconds since the last object.
        carried: an association that brought some of the objects is still open.
        have: number of objects received.
        expected: number of objects in the series; None if unknown.
        limits: from the configuration.

    >>> is_complete(0.5, carried=False, have=300, expected=300, limits=Complete())
    True
    >>> is_complete(15, carried=True, have=300, expected=None, limits=Complete())
    False
    """
    if expected is not None and have < expected:
        return quiet >= limits.count_s
    if expected is not None and not carried:
        return True
    return quiet >= (max(limits.open_s, limits.quiet_s) if carried else limits.quiet_s)


class _Question:
    """A running C-FIND for the number of objects in a series.

    Attributes:
        count: the answer; None if there is none.
        answered: when the answer came or failed, by the monotonic clock; None until then.
    """

    def __init__(self, aet: str, peer: Peer, job: Job) -> None:
        self.count: int | None = None
        self.answered: float | None = None
        threading.Thread(target=self._ask, args=(aet, peer, job), name="count", daemon=True).start()

    def _ask(self, aet: str, peer: Peer, job: Job) -> None:
        try:
            self.count = _asked(aet, peer, job)
        finally:
            self.answered = time.monotonic()


class Watcher:
    """Watches the series that are still arriving. Call :meth:`look` repeatedly.

    Args:
        settings: the node's settings.
        jobs: the queue.
        receiver: knows which associations are open.
        audit: where decisions are noted.
    """

    def __init__(self, settings: NodeSettings, jobs: Jobs, receiver: Receiver, audit: Audit) -> None:
        self.settings, self.jobs, self.receiver, self.audit = settings, jobs, receiver, audit
        self._counted: dict[int, _Question] = {}

    def look(self) -> None:
        """Close every series that is complete, and decide what to do with it."""
        waiting = self.jobs.all("received")
        for job in reversed(waiting):
            have, stated = self._arrived(job)
            quiet = time.time() - job.latest
            carried = self.receiver.is_carried(job.study, job.series)
            if quiet < -1:  # the clock was set back
                self.jobs.move(job.id, "received", "received", latest=time.time())
                continue
            expected, is_asking = (None, False) if carried else (stated, False) if stated else self._upstream(job)
            if is_asking:
                continue
            if is_complete(quiet, carried=carried, have=have, expected=expected, limits=self.settings.complete):
                self._finish(job, self.jobs.members(job.id), expected)
        self._counted = {job.id: self._counted[job.id] for job in waiting if job.id in self._counted}

    def _arrived(self, job: Job) -> tuple[int, int | None]:
        """How many objects of a series have come, and how many it should have according to their headers."""
        row = self.jobs.database.row(
            "SELECT COUNT(*), MAX(json_extract(facts, '$.instances')) FROM members JOIN objects USING (uid) WHERE job = ?",
            job.id,
        )
        assert row is not None
        return row[0], row[1] or None

    def _upstream(self, job: Job) -> tuple[int | None, bool]:
        """How many objects a series has according to the peer that is asked, and whether its answer is still pending.

        The query runs in its own thread, so that a peer that answers slowly or never does not hold up other series.
        """
        peer = next((sender.count for sender in self.settings.senders if sender.aet == job.sender), None)
        if peer is None:
            return None, False
        question = self._counted.get(job.id)
        if question is None or (
            question.answered is not None
            and time.monotonic() - question.answered > max(self.settings.complete.quiet_s, 1.0)
        ):
            question = self._counted[job.id] = _Question(self.settings.aet, peer, job)
        return question.count, question.answered is None

    def _finish(self, job: Job, rows: list[Any], expected: int | None) -> None:
        decided = [(row, Facts.from_plain(json.loads(row["facts"]))) for row in rows]
        decided.sort(key=lambda pair: (pair[1].instance_number, pair[0]["uid"]))
        each = [(row["uid"], facts, decide(self.settings.rules, facts, row["sender"])) for row, facts in decided]
        chosen = next((item for item in each if item[2].action.do == "denoise"), each[0])
        facts, decision = chosen[1], chosen[2]
        used = [uid for uid, _, own in each if own.rule == decision.rule and own.action == decision.action]
        warnings = _warnings(job, each, decision, len(rows), expected)
        gone = [row["uid"] for row in rows if row["path"] is None and row["uid"] in set(used)]
        action = decision.action.plain() | ({"shadow": True, "send": []} if self.settings.shadow else {})
        action["reasons"] = list(decision.reasons)
        state, error = "complete", None
        if action["do"] != "denoise":
            state = "done"
        elif gone:
            state = "failed"
            error = f"expected all {len(used)} objects of the series, but {len(gone)} were removed after keep.hours; send it again, then retry"
        self.audit.say(
            "received", job=job.id, study=job.study, series=job.series, edition=job.edition, sender=job.sender, address=job.address,
            objects=len(rows), used=len(used), rule=decision.rule, do=action["do"],
        )  # fmt: skip
        with self.jobs.database.change() as change:
            row = change.execute("SELECT latest, state FROM jobs WHERE id = ?", (job.id,)).fetchone()
            if row is None or row["latest"] != job.latest or row["state"] != "received":
                return  # another object has come in the meantime
            change.execute("UPDATE members SET used = 0 WHERE job = ?", (job.id,))
            change.executemany("UPDATE members SET used = 1 WHERE job = ? AND uid = ?", [(job.id, uid) for uid in used])
            self.jobs.move_within(
                change, job.id, "received", state, action=action, rule=decision.rule, facts=facts.plain(), warnings=warnings, error=error,
                tries=0, next_try=0,
            )  # fmt: skip
        logger.info("job %d is %s: %d objects, rule %s", job.id, state, len(rows), decision.rule or "none")


def _warnings(
    job: Job, each: list[tuple[str, Facts, Decision]], chosen: Decision, have: int, expected: int | None
) -> list[str]:
    warnings = []
    if expected is not None and have < expected:
        warnings.append(f"{expected} objects were expected and {have} came")
    if job.edition > 1:
        warnings.append(f"slices came late: this result replaces edition {job.edition - 1}")
    others = Counter(f"{own.rule or 'no rule'}, {facts.origin}" for _, facts, own in each if own.rule != chosen.rule)
    warnings += [f"{count} objects left out ({what})" for what, count in sorted(others.items())]
    return warnings


def _asked(aet: str, peer: Peer, job: Job) -> int | None:
    """A peer's answer for NumberOfSeriesRelatedInstances; None if it gives none."""
    question = Dataset()
    question.QueryRetrieveLevel = "SERIES"
    question.StudyInstanceUID, question.SeriesInstanceUID = job.study, job.series
    question.NumberOfSeriesRelatedInstances = None
    ae = AE(aet)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    try:
        with called(ae, peer, within_s=_COUNT_S) as assoc:
            for status, answer in assoc.send_c_find(question, StudyRootQueryRetrieveInformationModelFind):
                if status and status.Status in _PENDING and answer is not None:
                    value = answer.get("NumberOfSeriesRelatedInstances")
                    return int(value) if value else None
    except (NodeError, ValueError, RuntimeError, TypeError) as error:
        logger.warning("job %d: no count from %s: %s", job.id, peer.aet, error)
    return None
