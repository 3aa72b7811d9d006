"""The queue: jobs and the states that they go through.

received -> complete -> denoising -> sending -> done, or failed, from where a person sends it back. Every change of state is one
transaction that says which state it comes from, so that none is made twice.
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
    """A series at one point in time.

    Attributes:
        edition: 1; more where slices came after an earlier edition was under way.
        action: what to do, as :meth:`~ct_cncl.pipeline.node.rules.Action.plain` gives it; empty until it is decided.
        outcome: what was made of it.
        kept: its files still lie in the spool.
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
        """Denoised, and kept here."""
        return bool(self.action.get("shadow"))

    @property
    def ignored(self) -> bool:
        """No rule wants it."""
        return self.action.get("do") == "ignore"


def job_of(row: sqlite3.Row) -> Job:
    """A job from its row."""
    values: dict[str, Any] = {name: row[name] for name in Job.__dataclass_fields__}
    values |= {name: row[name] or "" for name in ("rule", "error")}
    values |= {name: json.loads(row[name] or "{}") for name in ("action", "facts", "outcome")}
    return Job(**values | {"warnings": json.loads(row["warnings"] or "[]"), "kept": bool(row["kept"])})


class Jobs:
    """The queue in a database.

    Args:
        database: its file.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, number: int) -> Job:
        """A job.

        Raises:
            NodeError: there is none of this number.
        """
        row = self.database.row("SELECT * FROM jobs WHERE id = ?", number)
        if row is None:
            raise NodeError(f"Expected the number of a job, but there is no {number}. `ct-cncl node queue` lists them.")
        return job_of(row)

    def all(self, *states: str, most: int = 1000) -> list[Job]:
        """Jobs in some states (in all, where none is named), the newest first."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        rows = self.database.rows(f"SELECT * FROM jobs {where} ORDER BY id DESC LIMIT {int(most)}", *states)  # noqa: S608
        return [job_of(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Jobs by state; every state is there."""
        found = dict(tuple(row) for row in self.database.rows("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    def add_object(
        self, identity: Identity, facts: Facts, *, digest: str, path: str, size: int, sender: str, address: str
    ) -> int:
        """Note an object that lies safely on disk, and the job that it belongs to.

        Returns:
            The job's number: one that still waits for objects, or a new edition.
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
        """Change a job's state, if it is ``before``; other columns with it.

        Returns:
            Whether it was.
        """
        with self.database.change() as change:
            return self.move_within(change, number, before, after, **values)

    @staticmethod
    def move_within(change: sqlite3.Connection, number: int, before: str, after: str, **values: Any) -> bool:
        """As :meth:`move`, within a transaction."""
        columns = {
            name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in values.items()
        }
        columns |= {"state": after, "changed": time.time()}
        text = ", ".join(f"{name} = ?" for name in columns)
        done = change.execute(f"UPDATE jobs SET {text} WHERE id = ? AND state = ?", (*columns.values(), number, before))  # noqa: S608
        return done.rowcount == 1

    def claim(self, worker: str) -> Job | None:
        """The oldest complete job that may be tried now, which is this worker's from now on."""
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
        """Give back what was being denoised by a worker that is gone; by all of them, where none is named.

        A node that was killed is no job's fault: then the try does not count.
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
        """Results are in place: on to the destinations, or done where there is none."""
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
        """The objects of a job, with ``used``: whether its results come from them too."""
        return self.database.rows(
            "SELECT objects.*, members.used FROM members JOIN objects USING (uid) WHERE job = ? ORDER BY uid", number
        )
