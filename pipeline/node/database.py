"""The node's database: one SQLite file in WAL mode, which survives a power cut at any moment."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.node.errors import NodeError

DATABASE_FILE = "node.db"
VERSION = 1
"""Version of the tables; see :data:`UPGRADES`."""
_TABLES = """
CREATE TABLE objects (
    uid TEXT PRIMARY KEY, sop_class TEXT NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, patient TEXT NOT NULL,
    digest TEXT NOT NULL, path TEXT, size INTEGER NOT NULL, sender TEXT NOT NULL, address TEXT NOT NULL, received REAL NOT NULL,
    facts TEXT NOT NULL);
CREATE INDEX objects_series ON objects (study, series);
CREATE INDEX objects_patient ON objects (patient) WHERE path IS NOT NULL;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, series TEXT NOT NULL, edition INTEGER NOT NULL, state TEXT NOT NULL,
    sender TEXT NOT NULL, address TEXT NOT NULL, began REAL NOT NULL, latest REAL NOT NULL, changed REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0, action TEXT, rule TEXT, facts TEXT, warnings TEXT, outcome TEXT,
    error TEXT, claim TEXT, kept INTEGER NOT NULL DEFAULT 1, UNIQUE (study, series, edition));
CREATE INDEX jobs_state ON jobs (state, next_try);
CREATE TABLE members (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, uid TEXT NOT NULL, used INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (job, uid)) WITHOUT ROWID;
CREATE INDEX members_uid ON members (uid);
CREATE TABLE deliveries (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, destination TEXT NOT NULL, state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0, error TEXT, changed REAL NOT NULL, transaction_uid TEXT,
    PRIMARY KEY (job, destination)) WITHOUT ROWID;
CREATE INDEX deliveries_state ON deliveries (destination, state, next_try);
CREATE TABLE sent (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, destination TEXT NOT NULL, uid TEXT NOT NULL,
    PRIMARY KEY (job, destination, uid)) WITHOUT ROWID;
CREATE TABLE promises (
    transaction_uid TEXT NOT NULL, sender TEXT NOT NULL, content TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0, PRIMARY KEY (transaction_uid, sender)) WITHOUT ROWID;
"""
UPGRADES: dict[int, str] = {}
"""For each version, the SQL script that upgrades its tables to the next version."""
MOUNTS = Path("/proc/self/mounts")
_SHARES = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "fuse.sshfs",
    "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "davfs", "ncpfs", "virtiofs",
)  # fmt: skip


class Database:
    """Connections to the database, one per thread.

    Args:
        spool: the database's folder, created if missing.

    Raises:
        NodeError: the folder lies on a network share or cannot be written to, or the file comes from a newer version of this program.
    """

    def __init__(self, spool: Path) -> None:
        refuse_shares(spool)
        refuse_unwritable(spool)
        try:
            spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(spool, error.strerror) from error
        self.path = spool / DATABASE_FILE
        self._own = threading.local()
        self._prepare()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found = getattr(self._own, "connection", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            found.row_factory = sqlite3.Row
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA foreign_keys = ON")
            self._own.connection = found
        return found

    def close(self) -> None:
        """Close this thread's connection."""
        found = getattr(self._own, "connection", None)
        if found is not None:
            found.close()
            self._own.connection = None

    @contextmanager
    def change(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """A write transaction. When the block ends, either all of it is on disk or nothing has changed.

        Args:
            synced: False leaves flushing to the next synced transaction. Until then a power cut may undo this one as a whole; the end of
                the process does not.
        """
        connection = self.connection()
        connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        try:
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self.connection().execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query."""
        found: sqlite3.Row | None = self.connection().execute(query, values).fetchone()
        return found

    def one(self, query: str, *values: Any) -> Any:
        """The first value of the first row; None if there is no row."""
        found = self.row(query, *values)
        return None if found is None else found[0]

    def _prepare(self) -> None:
        try:
            with self.change() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > VERSION:
                    raise NodeError(
                        f"Expected a queue of version {VERSION} or older in {self.path}, but got version {version}. "
                        "Start the newer version of ct-cncl that wrote it."
                    )
                if version == 0:
                    _run(connection, _TABLES)
                for step in range(max(version, 1), VERSION):
                    _run(connection, UPGRADES[step])
                connection.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            raise NodeError(f"Expected the node's queue in {self.path}, but got: {error}.") from error


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):  # executescript would end the transaction
        if statement.strip():
            connection.execute(statement)


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that this user cannot create or write to.

    Args:
        folder: may not exist yet.

    Raises:
        NodeError: names what is in the way.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _unwritable(folder, f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"this user may not write to {there}")


def _unwritable(folder: Path, reason: object) -> NodeError:
    return NodeError(f"Expected a writable spool in {folder}, but {reason}. Choose another node.spool.")


def refuse_shares(folder: Path) -> None:
    """Refuse a folder on a network share: SQLite's locks are not reliable there.

    Args:
        folder: may not exist yet.

    Raises:
        NodeError: names the kind of share.
    """
    try:
        text = MOUNTS.read_text(encoding="utf-8")
    except OSError:  # not Linux: the mounts are unknown
        return
    place, kind = "", ""
    target = folder.absolute().as_posix()
    for line in text.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        mounted = parts[1].replace("\\040", " ")
        if (target == mounted or target.startswith(mounted.rstrip("/") + "/")) and len(mounted) >= len(place):
            place, kind = mounted, parts[2]
    if kind in _SHARES:
        raise NodeError(
            f"Expected a spool on a disk of this machine, but {folder} is on a network share ({kind}), where SQLite's locks are not reliable. "
            "Choose a local folder; each machine needs its own node."
        )
