"""Storage commitment (PS3.4 annex J) in both roles: senders ask us, and we ask destinations. Reports use a separate association."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import NodeSettings, Peer, Sender

logger = logging.getLogger("ct_cncl.node")
INSTANCE = "1.2.840.10008.1.20.1.1"
"""The service's well-known SOP Instance UID."""
_SUCCESS, _INVALID, _NOT_AUTHORIZED, _PROCESSING = 0x0000, 0x0106, 0x0124, 0x0110
_NO_SUCH_INSTANCE, _CLASS_CONFLICT = 0x0112, 0x0119
_LINGER_S = 3.0
"""How long an association stays open after asking, for peers that report over the same one."""


def accept(settings: NodeSettings, database: Database, caller: str, event: Any) -> int:
    """Note what a sender wants committed. The report follows later, if need be after a restart.

    Returns:
        The N-ACTION status.
    """
    peers = [sender.commitment for sender in settings.senders if sender.aet == caller and sender.commitment]
    if not peers:
        return _NOT_AUTHORIZED
    try:
        asked = event.action_information
        wanted = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in asked.ReferencedSOPSequence
        ]
        transaction = str(asked.TransactionUID)
    except (AttributeError, ValueError):
        return _INVALID
    with database.change() as change:
        change.execute(
            "INSERT OR REPLACE INTO promises (transaction_uid, sender, content, next_try) VALUES (?, ?, ?, ?)",
            (transaction, caller, json.dumps(wanted), time.time()),
        )
    return _SUCCESS


def forget_strangers(settings: NodeSettings, database: Database) -> None:
    """Delete promises to senders that the configuration no longer names."""
    known = [sender.aet for sender in settings.senders if sender.commitment]
    with database.change() as change:
        change.execute(f"DELETE FROM promises WHERE sender NOT IN ({', '.join('?' * len(known))})", known)  # noqa: S608


def report_all(settings: NodeSettings, database: Database, sender: Sender) -> None:
    """Send a sender the reports that are due. A report that fails is tried again, up to the number of tries that a delivery gets.

    Each sender has its own thread for this, so that a slow one does not hold up the others.
    """
    assert sender.commitment is not None
    for row in database.rows("SELECT * FROM promises WHERE next_try <= ? AND sender = ?", time.time(), sender.aet):
        key = (row["transaction_uid"], row["sender"])
        if _reported(settings, database, sender.commitment, row):
            keep, tries = False, 0
        else:
            tries = row["tries"] + 1
            keep = tries < settings.retry.tries
        with database.change() as change:
            if keep:
                pause = min(settings.retry.first_s * 2 ** min(tries - 1, 20), settings.retry.longest_s)
                change.execute(
                    "UPDATE promises SET tries = ?, next_try = ? WHERE transaction_uid = ? AND sender = ?",
                    (tries, time.time() + pause, *key),
                )
            else:
                change.execute("DELETE FROM promises WHERE transaction_uid = ? AND sender = ?", key)


def _reported(settings: NodeSettings, database: Database, peer: Peer, row: Any) -> bool:
    good, bad = [], []
    for sop_class, uid in json.loads(row["content"]):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        known = database.row("SELECT sop_class, path FROM objects WHERE uid = ?", uid)
        if known is not None and known["path"] and known["sop_class"] == sop_class:
            good.append(item)
            continue
        item.FailureReason = _CLASS_CONFLICT if known is not None and known["path"] else _NO_SUCH_INSTANCE
        bad.append(item)
    report = Dataset()
    report.TransactionUID, report.RetrieveAETitle = row["transaction_uid"], settings.aet
    if good:
        report.ReferencedSOPSequence = good
    if bad:
        report.FailedSOPSequence = bad
    ae = AE(settings.aet)
    ae.add_requested_context(StorageCommitmentPushModel)
    try:
        with called(ae, peer, ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)]) as assoc:
            status, _ = assoc.send_n_event_report(report, 2 if bad else 1, StorageCommitmentPushModel, INSTANCE)
            return bool(status) and status.Status == _SUCCESS
    except (NodeError, ValueError, RuntimeError) as error:
        logger.warning("could not report storage commitment to %s: %s", row["sender"], error)
        return False


def ask(
    settings: NodeSettings, database: Database, peer: Peer, transaction: str, wanted: list[tuple[str, str]]
) -> None:
    """Ask a destination to commit objects. It reports over a new association, or over this one.

    Args:
        settings: the node's settings.
        database: where the report will be noted.
        peer: the destination.
        transaction: UID of the request.
        wanted: SOP class UID and SOP instance UID of each object.

    Raises:
        NodeError: the destination cannot be reached or declines.
    """
    question = Dataset()
    question.TransactionUID = transaction
    question.ReferencedSOPSequence = []
    for sop_class, uid in wanted:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        question.ReferencedSOPSequence.append(item)
    ae = AE(settings.aet)
    ae.add_requested_context(StorageCommitmentPushModel)

    def reported(event: Any) -> tuple[int, None]:
        return take_report(database, event.event_information, event.event_type), None

    with called(ae, peer, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)]) as assoc:
        status, _ = assoc.send_n_action(question, 1, StorageCommitmentPushModel, INSTANCE)
        if not status or status.Status != _SUCCESS:
            answer = f"0x{status.Status:04X}" if status else "no answer"
            raise NodeError(f"Expected storage commitment from {peer.aet}, but got {answer}.")
        until = time.monotonic() + _LINGER_S
        while time.monotonic() < until and assoc.is_established and not is_answered(database, transaction):
            time.sleep(0.05)


def is_answered(database: Database, transaction: str) -> bool:
    """Whether the report on a transaction has come."""
    return not database.one(
        "SELECT COUNT(*) FROM deliveries WHERE transaction_uid = ? AND state = 'asked'", transaction
    )


def take_report(database: Database, report: Dataset, kind: int) -> int:
    """Note a destination's report: all objects are committed, or the missing ones must be sent again.

    Returns:
        The N-EVENT-REPORT status.
    """
    transaction = str(report.get("TransactionUID") or "")
    failed = [str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence") or []]
    good = {str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence") or []}
    with database.change() as change:
        row = change.execute(
            "SELECT job, destination FROM deliveries WHERE transaction_uid = ? AND state = 'asked'", (transaction,)
        ).fetchone()
        if row is None:
            return _NO_SUCH_INSTANCE
        key = (row["job"], row["destination"])
        sent = {found[0] for found in change.execute("SELECT uid FROM sent WHERE job = ? AND destination = ?", key)}
        missing = {*failed, *(sent - good)}
        if kind == 1 and not missing:
            change.execute(
                "UPDATE deliveries SET state = 'committed', error = NULL, changed = ? WHERE job = ? AND destination = ?",
                (time.time(), *key),
            )
            return _SUCCESS
        change.executemany(
            "DELETE FROM sent WHERE job = ? AND destination = ? AND uid = ?", [(*key, uid) for uid in missing]
        )
        change.execute(
            "UPDATE deliveries SET state = 'waiting', error = ?, tries = tries + 1, next_try = ?, changed = ? WHERE job = ? AND destination = ?",
            (f"{len(missing)} objects were not committed", time.time() + 1, time.time(), *key),
        )
    return _SUCCESS
