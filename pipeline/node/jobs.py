"""The queue: jobs and the states that they go through.

received -> complete -> denoising -> sending -> done; or failed, until a person retries the job. Every change of state is one transaction
that checks the previous state, so that no change is made twice.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.facts import Facts, Identity

STATES = ("received", "complete", "denoising", "sending", "done", "failed")


@dataclass(frozen=True)
class Job:
    """One row of the queue: a series as it stood when read.

    Attributes:
        edition: 1, or higher if slices arrived after work on the previous edition had begun.
        action: what to do, as :meth:`~ct_cncl.pipeline.node.rules.Action.plain` gives it; empty until decided.
        outcome: result files and figures, as :func:`~ct_cncl.pipeline.node.make.make` returns them.
        kept: whether its files are still in the spool.
    """

    id: int
    study: str
    series: str
    edition: int
    state: str
    sender: str
    address: str
    began: float
    latest: float
    changed: float
    tries: int
    rule: str
    error: str
    action: dict[str, Any]
    facts: dict[str, Any]
    outcome: dict[str, Any]
    warnings: list[str]
    kept: bool

    @property
    def shadow(self) -> bool:
        """Whether the result is kept here and not sent."""
        return bool(self.action.get("shadow"))

    @property
    def ignored(self) -> bool:
        """Whether the job is ignored, by a rule or because none matched."""
        return self.action.get("do") == "ignore"


def job_of(row: sqlite3.Row) -> Job:
    """Convert a database row to a job."""
    values: dict[str, Any] = {name: row[name] for name in Job.__dataclass_fields__}
    values |= {name: row[name] or "" for name in ("rule", "error")}
    values |= {name: json.loads(row[name] or "{}") for name in ("action", "facts", "outcome")}
    return Job(**values | {"warnings": json.loads(row["warnings"] or "[]"), "kept": bool(row["kept"])})


class Jobs:
    """The queue.

    Args:
        database: holds the queue.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, number: int) -> Job:
        """The job with this number.

        Raises:
            NodeError: there is no such job.
        """
        row = self.database.row("SELECT * FROM jobs WHERE id = ?", number)
        if row is None:
            raise NodeError(
                f"Expected the number of a job, but there is no job {number}. `ct-cncl node queue` lists them."
            )
        return job_of(row)

    def all(self, *states: str, most: int = 1000) -> list[Job]:
        """Jobs in the given states, or in any state if none is given, newest first; at most ``most``."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        rows = self.database.rows(f"SELECT * FROM jobs {where} ORDER BY id DESC LIMIT {int(most)}", *states)  # noqa: S608
        return [job_of(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Number of jobs in each state, including states without jobs."""
        found = dict(tuple(row) for row in self.database.rows("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    def add_object(
        self, identity: Identity, facts: Facts, *, digest: str, path: str, size: int, sender: str, address: str
    ) -> int:
        """Add an object that is safely on disk, and assign it to a job.

        Returns:
            The number of the job: one that has not been started, or a new edition.
        """
        now = time.time()
        with self.database.change() as change:
            change.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (identity.uid, identity.sop_class, identity.study, identity.series, identity.patient, digest, path, size, sender, address,
                 now, json.dumps(facts.plain())),
            )  # fmt: skip
            key = (identity.study, identity.series)
            row = change.execute(
                "SELECT id FROM jobs WHERE study = ? AND series = ? AND state IN ('received', 'complete')", key
            ).fetchone()
            if row is not None:
                change.execute(
                    "UPDATE jobs SET state = 'received', latest = ?, changed = ? WHERE id = ?", (now, now, row[0])
                )
                change.execute("INSERT INTO members (job, uid) VALUES (?, ?)", (row[0], identity.uid))
                return int(row[0])
            edition = change.execute(
                "SELECT COALESCE(MAX(edition), 0) + 1 FROM jobs WHERE study = ? AND series = ?", key
            ).fetchone()[0]
            number = change.execute(
                "INSERT INTO jobs (study, series, edition, state, sender, address, began, latest, changed) "
                "VALUES (?, ?, ?, 'received', ?, ?, ?, ?, ?)",
                (*key, edition, sender, address, now, now, now),
            ).lastrowid
            change.execute(
                "INSERT INTO members (job, uid) SELECT ?, uid FROM objects WHERE study = ? AND series = ?",
                (number, *key),
            )
            return int(number or 0)

    def move(self, number: int, before: str, after: str, **values: Any) -> bool:
        """Change a job's state from ``before`` to ``after``, and set other columns. Do nothing if the state is not ``before``.

        Returns:
            Whether the job was changed.
        """
        with self.database.change() as change:
            return self.move_within(change, number, before, after, **values)

    @staticmethod
    def move_within(change: sqlite3.Connection, number: int, before: str, after: str, **values: Any) -> bool:
        """Do the same as :meth:`move`, within a transaction that is already open."""
        columns = {
            name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in values.items()
        }
        columns |= {"state": after, "changed": time.time()}
        text = ", ".join(f"{name} = ?" for name in columns)
        done = change.execute(f"UPDATE jobs SET {text} WHERE id = ? AND state = ?", (*columns.values(), number, before))  # noqa: S608
        return done.rowcount == 1

    def claim(self, worker: str) -> Job | None:
        """Assign the oldest complete job that is due to a worker, and return it; None if there is none."""
        if (
            self.database.one("SELECT id FROM jobs WHERE state = 'complete' AND next_try <= ? LIMIT 1", time.time())
            is None
        ):
            return None
        with self.database.change() as change:
            row = change.execute(
                "SELECT id FROM jobs WHERE state = 'complete' AND next_try <= ? ORDER BY id LIMIT 1", (time.time(),)
            ).fetchone()
            if row is None:
                return None
            change.execute(
                "UPDATE jobs SET state = 'denoising', claim = ?, tries = tries + 1, changed = ? WHERE id = ?",
                (worker, time.time(), row[0]),
            )
        return self.get(row[0])

    def release(self, claim: str | None = None) -> list[int]:
        """Return the jobs of a dead worker to the queue, or those of all workers if ``claim`` is None.

        None means that the node itself was stopped. This is not the fault of a job, so the try does not count.

        Returns:
            The numbers of these jobs.
        """
        with self.database.change() as change:
            where, values = (
                ("state = 'denoising'", ()) if claim is None else ("state = 'denoising' AND claim = ?", (claim,))
            )
            numbers = [row[0] for row in change.execute(f"SELECT id FROM jobs WHERE {where}", values)]  # noqa: S608
            less = 1 if claim is None else 0
            change.execute(
                f"UPDATE jobs SET state = 'complete', claim = NULL, tries = MAX(tries - {less}, 0), changed = ? WHERE {where}",  # noqa: S608
                (time.time(), *values),
            )
        return numbers

    def finish(self, number: int, outcome: dict[str, Any], warnings: list[str], destinations: tuple[str, ...]) -> bool:
        """Move a denoised job to "sending", or to "done" if it has no destinations.

        Returns:
            Whether the job was still being denoised.
        """
        after = "sending" if destinations else "done"
        with self.database.change() as change:
            moved = self.move_within(
                change,
                number,
                "denoising",
                after,
                outcome=outcome,
                warnings=warnings,
                tries=0,
                next_try=0,
                error=None,
                claim=None,
            )
            if moved:
                change.executemany(
                    "INSERT OR REPLACE INTO deliveries (job, destination, state, changed) VALUES (?, ?, 'waiting', ?)",
                    [(number, name, time.time()) for name in destinations],
                )
        return moved

    def members(self, number: int) -> list[sqlite3.Row]:
        """The objects of a job. The column ``used`` says whether an object goes into the results."""
        return self.database.rows(
            "SELECT objects.*, members.used FROM members JOIN objects USING (uid) WHERE job = ? ORDER BY uid", number
        )
