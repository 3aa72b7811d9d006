"""Retention: what is done is removed after some hours, or earlier where the spool grows too large; nothing before it is done."""

from __future__ import annotations

import logging
import shutil
import time

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.jobs import Job, Jobs
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool

logger = logging.getLogger("ct_cncl.node")
_HOUR, _DAY = 3600.0, 86400.0
_STALE_S = 3600.0


class Retention:
    """Call :meth:`look` now and then.

    Args:
        settings: of the node.
        spool: its folders.
        jobs: the queue.
        audit: where removals are noted.
    """

    def __init__(self, settings: NodeSettings, spool: Spool, jobs: Jobs, audit: Audit) -> None:
        self.settings, self.spool, self.jobs, self.audit = settings, spool, jobs, audit

    def look(self) -> None:
        """Remove what is over time, then the oldest of what is done while there is too much."""
        keep = self.settings.keep
        done = [job for job in reversed(self.jobs.all("done", most=100000)) if job.kept]
        too_old = [job for job in done if time.time() - job.changed >= keep.hours * _HOUR]
        for job in too_old:
            self.remove_files(job)
        rest = [job for job in done if job not in too_old]
        while rest and self.spool.size() > keep.bytes:
            self.remove_files(rest.pop(0))
        self._tidy_others(keep.hours * _HOUR)
        self._forget(keep.remember_days * _DAY)

    def remove_files(self, job: Job) -> None:
        """Remove a job's results, and the objects that no other job still needs."""
        self.audit.say("removed", job=job.id, study=job.study, series=job.series)
        shutil.rmtree(self.spool.job_results(job.id), ignore_errors=True)
        places = self.jobs.database.rows(
            "SELECT objects.uid, objects.path FROM objects JOIN members USING (uid) WHERE members.job = ? AND objects.path IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM members AS other JOIN jobs ON jobs.id = other.job WHERE other.uid = objects.uid "
            "AND jobs.id <> ? AND (jobs.state <> 'done' OR jobs.kept = 1))",
            job.id, job.id,
        )  # fmt: skip
        with self.jobs.database.change() as change:  # the queue first: a kill leaves a file that the next start sweeps
            change.executemany("UPDATE objects SET path = NULL WHERE uid = ?", [(row["uid"],) for row in places])
            change.execute("UPDATE jobs SET kept = 0 WHERE id = ?", (job.id,))
        for row in places:
            (self.spool.folder / row["path"]).unlink(missing_ok=True)
        logger.info("job %d: files removed", job.id)

    def _tidy_others(self, seconds: float) -> None:
        for folder, limit in ((self.spool.others, seconds), (self.spool.incoming, _STALE_S)):
            for path in folder.rglob("*"):
                if path.is_file() and time.time() - path.stat().st_mtime > max(
                    limit, _STALE_S if folder == self.spool.incoming else 0
                ):
                    path.unlink(missing_ok=True)

    def _forget(self, seconds: float) -> None:
        """Rows of what was done long ago; until then, objects that come again are known."""
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
