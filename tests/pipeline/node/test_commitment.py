"""Storage commitment without a network: what a report does to a delivery, and what a sender's question is answered with."""

from types import SimpleNamespace

import pytest
from pydicom.dataset import Dataset

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from queued_job import QueuedJob
from tiny_node import CT, config

from ct_cncl.pipeline.node import commitment
from ct_cncl.pipeline.node.read_settings import read_settings

HERE = {"aet": "PACS", "host": "127.0.0.1", "port": 104}


@pytest.fixture
def asked(tmp_path):
    """A job whose three objects were sent, and whose destination was asked to commit them."""
    job = QueuedJob(tmp_path, HERE | {"commit": True})
    with job.jobs.database.change() as change:
        change.executemany("INSERT INTO sent VALUES (1, 'there', ?)", [(uid,) for uid in job.uids])
        change.execute("UPDATE deliveries SET state = 'asked', transaction_uid = '1.2.3'")
    return job


def report(good, failed=(), transaction="1.2.3"):
    made = Dataset()
    made.TransactionUID = transaction
    for name, uids in (("ReferencedSOPSequence", good), ("FailedSOPSequence", failed)):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
            items.append(item)
        if items:
            setattr(made, name, items)
    return made


def sent(job):
    return {row[0] for row in job.jobs.database.rows("SELECT uid FROM sent")}


def test_all_committed_is_done(asked):
    assert commitment.take_report(asked.jobs.database, report(asked.uids), 1) == 0x0000
    assert asked.delivery()["state"] == "committed"
    asked.sending._close_jobs()
    assert asked.state == "done"


def test_nothing_is_done_before_the_report(asked):
    asked.sending._close_jobs()
    assert asked.state == "sending"


@pytest.mark.parametrize(("good", "failed", "kind"), [([0, 1], [2], 2), ([0, 1], [], 1), ([], [0, 1, 2], 2)])
def test_what_was_not_committed_is_sent_once_more(asked, good, failed, kind):
    names = [[asked.uids[k] for k in part] for part in (good, failed)]
    assert commitment.take_report(asked.jobs.database, report(*names), kind) == 0x0000
    assert (asked.delivery()["state"], asked.delivery()["tries"]) == ("waiting", 1)
    assert sent(asked) == set(names[0])
    asked.sending._close_jobs()
    assert asked.state == "sending"


def test_a_report_on_something_else_changes_nothing(asked):
    assert commitment.take_report(asked.jobs.database, report(asked.uids, transaction="9.9"), 1) == 0x0112
    assert asked.delivery()["state"] == "asked"


def test_a_sender_without_an_address_for_reports_is_refused(tmp_path):
    senders = [{"aet": "WITH", "commitment": HERE}, {"aet": "WITHOUT"}]
    settings = read_settings(config(tmp_path, None, "", rules=[], senders=senders))
    job = QueuedJob(tmp_path / "queue", HERE)
    database = job.jobs.database
    event = SimpleNamespace(action_information=report(["1.2.9"]))
    assert commitment.accept(settings, database, "WITHOUT", event) == 0x0124
    assert database.rows("SELECT * FROM promises") == []
    assert commitment.accept(settings, database, "WITH", event) == 0x0000
    assert commitment.accept(settings, database, "WITH", SimpleNamespace(action_information=Dataset())) == 0x0106
    promise = database.row("SELECT * FROM promises")
    assert (promise["sender"], promise["content"]) == ("WITH", f'[["{CT}", "1.2.9"]]')


def test_a_report_that_cannot_be_sent_is_tried_again_and_given_up_at_last(tmp_path):
    from tiny_node import free_port

    senders = [{"aet": "WITH", "commitment": HERE | {"port": free_port()}}]
    settings = read_settings(
        config(tmp_path, None, "", rules=[], senders=senders, retry={"first_s": 0.01, "longest_s": 0.01, "tries": 2})
    )
    database = QueuedJob(tmp_path / "queue", HERE).jobs.database
    commitment.accept(settings, database, "WITH", SimpleNamespace(action_information=report(["1.2.9"])))
    for left in ([1], []):
        with database.change() as change:
            change.execute("UPDATE promises SET next_try = 0")
        commitment.report_all(settings, database, settings.senders[0])
        assert [row["tries"] for row in database.rows("SELECT tries FROM promises")] == left
