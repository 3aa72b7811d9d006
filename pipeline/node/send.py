"""Sending results to their destinations: each object until it is accepted, each destination at its own pace.

A job holds its destination for at most ``turn_s``. What was accepted in a turn is remembered, and then the other waiting jobs come first:
a destination that takes one object a minute does not hold up other destinations, nor other jobs for longer than a turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.uid import generate_uid

from ct_cncl.pipeline.node import commitment
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.errors import NodeError, in_one_line
from ct_cncl.pipeline.node.jobs import Job, Jobs, job_of
from ct_cncl.pipeline.node.send_dimse import send_by_c_store
from ct_cncl.pipeline.node.send_web import send_by_stow
from ct_cncl.pipeline.node.settings import Destination, NodeSettings

logger = logging.getLogger("ct_cncl.node")
_REPORT_S = 3600.0
"""How long to wait for a report of storage commitment before sending the objects and asking again."""
Accepted = Callable[[str], None]


@dataclass(frozen=True)
class Delivery:
    """One job on its way to one destination."""

    job: Job
    destination: Destination
    tries: int


class Sending:
    """The deliveries to one destination. Call :meth:`look` repeatedly, always from the same thread.

    Args:
        settings: the node's settings.
        destination: where to send.
        jobs: the queue.
        audit: where deliveries are noted.
    """

    def __init__(self, settings: NodeSettings, destination: Destination, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.destination, self.jobs, self.audit = settings, destination, jobs, audit
        self.objects = self.failures = 0

    def look(self) -> bool:
        """Send the delivery that is due and has waited longest, and return whether there was one."""
        self._ask_again()
        row = self.jobs.database.row(
            "SELECT deliveries.tries, jobs.id AS number FROM deliveries JOIN jobs ON jobs.id = deliveries.job "
            "WHERE destination = ? AND deliveries.state = 'waiting' AND deliveries.next_try <= ? AND jobs.state = 'sending' "
            "ORDER BY CASE WHEN deliveries.next_try = 0 THEN deliveries.changed ELSE deliveries.next_try END, jobs.id LIMIT 1",
            self.destination.name, time.time(),
        )  # fmt: skip
        self._close_jobs()
        if row is None:
            return False
        delivery = Delivery(self.jobs.get(row["number"]), self.destination, row["tries"])
        before = self.objects
        try:
            self._send(delivery)
        except (NodeError, OSError, ValueError, RuntimeError) as error:
            self._later(delivery, in_one_line(error), moved=self.objects > before)
        self._close_jobs()
        return True

    def _send(self, delivery: Delivery) -> None:
        job, name = delivery.job, self.destination.name
        sent = {
            row[0]
            for row in self.jobs.database.rows("SELECT uid FROM sent WHERE job = ? AND destination = ?", job.id, name)
        }
        files = job.outcome["files"]
        left = [entry | {"path": self.settings.spool / entry["path"]} for entry in files if entry["uid"] not in sent]

        def accepted(uid: str) -> None:
            # If a power cut undoes this, the object is sent again. The change after the last object is synced.
            with self.jobs.database.change(synced=False) as change:
                if (
                    change.execute("SELECT 1 FROM jobs WHERE id = ? AND state = 'sending'", (job.id,)).fetchone()
                    is None
                ):
                    raise NodeError("the job was dropped while it was being sent")
                change.execute("INSERT OR IGNORE INTO sent VALUES (?, ?, ?)", (job.id, name, uid))
            self.objects += 1

        if left and self.destination.peer is None:
            send_by_stow(self.destination, left, accepted)
        elif left:
            send_by_c_store(self.settings.aet, self.destination, left, accepted)
        self.audit.say(
            "delivered", job=job.id, study=job.study, series=job.series, destination=name, objects=len(files)
        )
        logger.info("job %d: delivered to %s", job.id, name)
        if self.destination.commit:
            self._ask(job, files)
            return
        with self.jobs.database.change() as change:
            change.execute(
                "UPDATE deliveries SET state = 'sent', error = NULL, changed = ? WHERE job = ? AND destination = ?",
                (time.time(), job.id, name),
            )

    def _ask(self, job: Job, files: list[dict[str, Any]]) -> None:
        peer = self.destination.peer
        assert peer is not None
        transaction = str(generate_uid())
        with self.jobs.database.change() as change:  # before asking, since the report may come before the answer
            change.execute(
                "UPDATE deliveries SET state = 'asked', transaction_uid = ?, changed = ? WHERE job = ? AND destination = ?",
                (transaction, time.time(), job.id, self.destination.name),
            )
        wanted = [(entry["sop_class"], entry["uid"]) for entry in files]
        commitment.ask(self.settings, self.jobs.database, peer, transaction, wanted)

    def _ask_again(self) -> None:
        late = (self.destination.name, time.time() - _REPORT_S)
        if not self.jobs.database.one(
            "SELECT COUNT(*) FROM deliveries WHERE destination = ? AND state = 'asked' AND changed < ?", *late
        ):
            return
        with self.jobs.database.change() as change:
            change.execute(
                "UPDATE deliveries SET state = CASE WHEN tries + 1 >= ? THEN 'failed' ELSE 'waiting' END, tries = tries + 1, changed = ?, error = ? "
                "WHERE destination = ? AND state = 'asked' AND changed < ?",
                (self.settings.retry.tries, time.time(), f"no report of storage commitment within {_REPORT_S:.0f} s", *late),
            )  # fmt: skip

    def _later(self, delivery: Delivery, error: str, *, moved: bool) -> None:
        """Schedule another try after a pause. A try in which the destination accepted something restarts the count."""
        self.failures += 1
        retry, tries = self.settings.retry, 1 if moved else delivery.tries + 1
        state = "failed" if tries >= retry.tries else "waiting"
        pause = min(retry.first_s * 2 ** min(tries - 1, 20), retry.longest_s)
        with self.jobs.database.change() as change:
            change.execute(
                "UPDATE deliveries SET state = ?, tries = ?, next_try = ?, error = ?, changed = ? WHERE job = ? AND destination = ?",
                (state, tries, time.time() + pause, error, time.time(), delivery.job.id, self.destination.name),
            )
        logger.warning("job %d: not delivered to %s (try %d): %s", delivery.job.id, self.destination.name, tries, error)

    def _close_jobs(self) -> None:
        """Finish the jobs whose deliveries have all ended: "done", or "failed" if one of them failed."""
        rows = self.jobs.database.rows(
            "SELECT jobs.* FROM jobs WHERE state = 'sending' AND NOT EXISTS "
            "(SELECT 1 FROM deliveries WHERE deliveries.job = jobs.id AND deliveries.state IN ('waiting', 'asked'))"
        )
        for job in map(job_of, rows):
            for row in self.jobs.database.rows(
                "SELECT * FROM deliveries WHERE job = ? AND state = 'committed'", job.id
            ):
                self.audit.say(
                    "committed", job=job.id, study=job.study, series=job.series, destination=row["destination"]
                )
            failed = self.jobs.database.rows("SELECT * FROM deliveries WHERE job = ? AND state = 'failed'", job.id)
            if not failed:
                self.jobs.move(job.id, "sending", "done", error=None)
                continue
            text = "; ".join(f"{row['destination']}: {row['error']}" for row in failed)
            self.audit.say("failed", job=job.id, study=job.study, series=job.series, step="send")
            self.jobs.move(job.id, "sending", "failed", error=text)
