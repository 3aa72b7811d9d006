"""What a person can do to the queue: retry or drop a job. The command line and the page share this code."""

from __future__ import annotations

import time

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.retention import Retention

_TABLE = "{:>6}  {:<10} {:<16} {:>7}  {:<20} {}"


def retry(jobs: Jobs, audit: Audit, number: int) -> str:
    """Retry a failed job from the step that failed, or retry a waiting job now.

    Returns:
        A line that says what was done.

    Raises:
        NodeError: there is no such job, or nothing to retry.
    """
    job = jobs.get(number)
    if job.state not in ("failed", "sending", "complete"):
        raise NodeError(f"Expected a failed or waiting job, but job {number} is {job.state}. It needs no retry.")
    audit.say("retried", job=job.id, study=job.study, series=job.series, state=job.state)
    made = bool(job.outcome.get("files"))
    after = "sending" if made else "complete"
    with jobs.database.change() as change:
        if not jobs.move_within(change, number, job.state, after, tries=0, next_try=0, error=None):
            raise NodeError(f"Expected job {number} to be still {job.state}, but its state has changed. Look again.")
        if made:
            change.execute(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_try = 0, changed = ? WHERE job = ? AND state IN ('failed', 'waiting')",
                (time.time(), number),
            )
    return f"job {number} is {after} now"


def drop(jobs: Jobs, audit: Audit, retention: Retention, number: int) -> str:
    """Delete a job and its objects, so that they can be sent again as if for the first time.

    Returns:
        A line that says what was done.

    Raises:
        NodeError: there is no such job, or it is being denoised.
    """
    job = jobs.get(number)
    if job.state == "denoising":
        raise NodeError(f"Expected an idle job, but job {number} is being denoised. Wait, or stop the node.")
    audit.say("dropped", job=job.id, study=job.study, series=job.series, state=job.state)
    if not jobs.move(number, job.state, "done", action={"do": "ignore", "reasons": ["dropped by a person"]}):
        raise NodeError(f"Expected job {number} to be still {job.state}, but its state has changed. Look again.")
    retention.remove_files(jobs.get(number))
    with jobs.database.change() as change:
        change.execute("DELETE FROM jobs WHERE id = ?", (number,))
        change.execute(
            "DELETE FROM objects WHERE path IS NULL AND NOT EXISTS (SELECT 1 FROM members WHERE members.uid = objects.uid)"
        )
    return f"job {number} is dropped"


def table(jobs: Jobs, *states: str) -> list[str]:
    """The queue as lines of text, newest last, without patient names or series descriptions."""
    lines = [_TABLE.format("job", "state", "sender", "objects", "since", "rule, error")]
    for job in reversed(jobs.all(*states)):
        count = jobs.database.one("SELECT COUNT(*) FROM members WHERE job = ?", job.id)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.changed))
        what = "ignored" if job.state == "done" and job.ignored else job.rule
        lines.append(
            _TABLE.format(
                job.id, job.state, job.sender, count, since, "; ".join(filter(None, (what, job.error)))
            ).rstrip()
        )
    return lines
