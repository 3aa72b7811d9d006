"""Retention: files of finished jobs are removed after some hours, or earlier if the spool grows too large. Unfinished jobs keep theirs."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from contextlib import suppress

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.jobs import Job, Jobs
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool

logger = logging.getLogger("ct_cncl.node")
_HOUR, _DAY = 3600.0, 86400.0
_STALE_S = 3600.0
_NEEDLESS = (
    "objects.path IS NOT NULL AND NOT EXISTS (SELECT 1 FROM members AS other JOIN jobs ON jobs.id = other.job "
    "WHERE other.uid = objects.uid AND jobs.id <> ? AND (jobs.state <> 'done' OR jobs.kept = 1))"
)
"""SQL condition on an object: its file is in the spool, and no job other than the given one needs it."""


class Retention:
    """Removes files and rows that are no longer needed. Call :meth:`look` from time to time.

    Args:
        settings: the node's settings.
        spool: the node's spool.
        jobs: the queue.
        audit: where removals are noted.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.spool, self.jobs, self.audit = settings, spool, jobs, audit

    def look(self) -> None:
        """Remove what is older than ``keep.hours``, then the oldest finished jobs' files while the spool exceeds ``keep.bytes``."""
        keep = self.settings.keep
        until = time.time() - keep.hours * _HOUR
        kept = self.jobs.database.rows("SELECT id, changed FROM jobs WHERE state = 'done' AND kept = 1 ORDER BY id")
        for row in kept:
            if row["changed"] <= until:
                self.remove_files(self.jobs.get(row["id"]))
        self._remove_needless(until)
        rest = [row["id"] for row in kept if row["changed"] > until]
        if rest and self.spool.size() > keep.bytes:
            self._remove_needless(time.time())
        while rest and self.spool.size() > keep.bytes:
            self.remove_files(self.jobs.get(rest.pop(0)))
        self._tidy_others(keep.hours * _HOUR)
        self._forget(keep.remember_days * _DAY)

    def remove_files(self, job: Job) -> None:
        """Remove a job's results with their entries in the queue, and the objects that no other job needs."""
        self.audit.say("removed", job=job.id, study=job.study, series=job.series)
        shutil.rmtree(self.spool.job_results(job.id), ignore_errors=True)
        with self.jobs.database.change() as change:  # the queue first: a file left by a kill is swept at the next start
            rows = change.execute(
                f"SELECT uid, path FROM objects JOIN members USING (uid) WHERE members.job = ? AND {_NEEDLESS}", (job.id, job.id)  # noqa: S608
            ).fetchall()  # fmt: skip
            _forget_paths(change, rows)
            change.execute(
                "UPDATE jobs SET kept = 0, outcome = json_remove(outcome, '$.files') WHERE id = ?", (job.id,)
            )
            change.execute("DELETE FROM sent WHERE job = ?", (job.id,))
        self._unlink(rows)
        logger.info("job %d: files removed", job.id)

    def _remove_needless(self, until: float) -> None:
        """Remove objects that were sent again after their removal and that no job uses."""
        query = f"SELECT uid, path FROM objects INDEXED BY objects_patient WHERE received <= ? AND {_NEEDLESS}"  # noqa: S608
        if self.jobs.database.row(query, until, 0) is None:
            return
        with self.jobs.database.change() as change:
            rows = change.execute(query, (until, 0)).fetchall()
            _forget_paths(change, rows)
        self._unlink(rows)

    def _unlink(self, rows: list[sqlite3.Row]) -> None:
        for row in rows:
            (self.spool.folder / row["path"]).unlink(missing_ok=True)

    def _tidy_others(self, seconds: float) -> None:
        for folder, limit in ((self.spool.others, seconds), (self.spool.incoming, _STALE_S)):
            for path in folder.rglob("*"):
                with suppress(FileNotFoundError):  # it was being received, and has just been renamed
                    if path.is_file() and time.time() - path.stat().st_mtime > limit:
                        path.unlink()

    def _forget(self, seconds: float) -> None:
        """Delete the rows of jobs that were done long ago. Until then, objects that are sent again are recognised."""
        old = self.jobs.database.rows(
            "SELECT id FROM jobs WHERE state = 'done' AND kept = 0 AND changed < ?", time.time() - seconds
        )
        if not old:
            return
        with self.jobs.database.change() as change:
            change.executemany("DELETE FROM jobs WHERE id = ?", [(row["id"],) for row in old])
            change.execute(
                "DELETE FROM objects WHERE path IS NULL AND NOT EXISTS (SELECT 1 FROM members WHERE members.uid = objects.uid)"
            )


def _forget_paths(change: sqlite3.Connection, rows: list[sqlite3.Row]) -> None:
    change.executemany("UPDATE objects SET path = NULL WHERE uid = ?", [(row["uid"],) for row in rows])
