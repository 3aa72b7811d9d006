"""Destinations that take their time, or say nothing: a job has its turn, and neither other jobs nor other destinations wait for it."""

import threading
import time
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from queued_job import QueuedJob
from slow_peers import Proxy, Trickling
from tiny_node import CT, PATIENCE_S, Destination

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from pynetdicom import AE

from ct_cncl.pipeline.node import calling
from ct_cncl.pipeline.node.calling import called
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.facts import Facts, Identity
from ct_cncl.pipeline.node.send_dimse import send_by_c_store
from ct_cncl.pipeline.node.settings import Destination as There
from ct_cncl.pipeline.node.settings import Peer

TURN_S = 3.0
"""Long enough to open an association on a busy machine."""
AT_MOST_S = 60.0
"""Half of what a single answer may take: without a limit for the whole of it, each of these would take that long or for ever."""


def at(port, **more):
    return {"aet": "PACS", "host": "127.0.0.1", "port": port, "turn_s": TURN_S} | more


class Holding(Destination):
    """Takes some objects, and then lets the next one wait."""

    def __init__(self, after):
        super().__init__()
        self.after, self.go_on = after, threading.Event()

    def _stored(self, event):
        if len(self.times) >= self.after:
            self.go_on.wait(PATIENCE_S)
        return super()._stored(event)


@pytest.fixture
def within():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_MOST_S


def test_one_that_takes_objects_and_never_answers(tmp_path, within):
    with Destination() as there, Proxy(there.port, back=450) as proxy:  # the association's answer goes through
        one = QueuedJob(tmp_path, at(proxy.port))
        one.look()
        row = one.delivery()
    assert (one.state, row["state"], row["tries"]) == ("sending", "waiting", 1)
    assert row["error"] == f"Expected PACS at 127.0.0.1 port {proxy.port} to be done within 3 s, but it was not."


def test_one_that_stops_reading(tmp_path, within):
    """Its window is closed: a write that waits for ever, in a thread that an abort would wait for."""
    write_series(tmp_path, 1, slices=1)
    dataset = pydicom.dcmread(tmp_path / "000.dcm")
    dataset.Rows = dataset.Columns = 3072
    dataset.PixelData = np.zeros((3072, 3072), np.int16).tobytes()
    dataset.save_as(tmp_path / "000.dcm")
    entry = {
        "path": tmp_path / "000.dcm", "uid": str(dataset.SOPInstanceUID), "sop_class": CT,
        "syntax": str(dataset.file_meta.TransferSyntaxUID),
    }  # fmt: skip
    with Destination() as there, Proxy(there.port, forth=200_000) as proxy:
        destination = There("there", Peer("PACS", "127.0.0.1", proxy.port), turn_s=TURN_S)
        with pytest.raises(NodeError, match="to be done within 3 s"):
            send_by_c_store("NODE", destination, [entry], lambda _: None)


def test_one_that_trickles_while_an_association_is_opened(monkeypatch, within):
    monkeypatch.setattr(calling, "_OPEN_S", TURN_S)
    ae = AE("NODE")
    ae.add_requested_context(CT)
    with (
        Trickling(b"\x02\x00\x00\x00\xff\xff") as there,
        pytest.raises(NodeError, match="to answer, but it does not"),
        called(ae, Peer("PACS", "127.0.0.1", there.port)),
    ):
        pass


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b""]
)
def test_a_web_service_that_trickles(tmp_path, within, text):
    """In its head, in its content, in its first line."""
    with Trickling(text, pause=0.005) as there:
        one = QueuedJob(tmp_path, {"url": f"http://127.0.0.1:{there.port}/dicom-web", "turn_s": TURN_S})
        one.look()
        row = one.delivery()
    assert (one.state, row["state"], row["tries"]) == ("sending", "waiting", 1)
    assert "within 3 s" in row["error"]
    assert one.jobs.database.one("SELECT COUNT(*) FROM sent") == 0


def test_what_was_taken_in_a_turn_is_kept_and_the_count_of_tries_begins_anew(tmp_path):
    with Holding(after=1) as there:
        one = QueuedJob(tmp_path, at(there.port, turn_s=10), tries=2)
        one.look()
        row = one.delivery()
        assert one.jobs.database.one("SELECT COUNT(*) FROM sent") == 1
        assert (one.state, row["state"], row["tries"]) == ("sending", "waiting", 1)
        there.go_on.set()
        one.look()
        assert one.state == "done"
    assert set(there.times) == set(one.uids)


def test_a_job_whose_turn_is_over_waits_behind_the_others(tmp_path):
    with Holding(after=0) as there:
        one = QueuedJob(tmp_path, at(there.port))
        for number, name in ((2, "1.3"), (3, "1.4")):
            one.jobs.add_object(
                Identity(name, CT, "1.1", name, "p"), Facts(), digest="d", path="x", size=1, sender="S", address="a"
            )
            one.jobs.move(number, "received", "complete")
            one.jobs.claim("worker1")
            one.jobs.finish(number, {"files": []}, [], ("there",))
        one.sending.settings = replace(one.sending.settings, retry=replace(one.sending.settings.retry, first_s=0.0))
        ended = []
        for _ in range(4):
            one.sending.look()
            there.go_on.set()
            one.sending.destination = replace(one.sending.destination, turn_s=PATIENCE_S)
            ended.append([one.jobs.get(number).state for number in (1, 2, 3)])
    assert ended == [
        ["sending", "sending", "sending"],
        ["sending", "done", "sending"],
        ["sending", "done", "done"],
        ["done", "done", "done"],
    ]


def test_a_report_of_commitment_that_never_comes_fails_at_last(tmp_path, monkeypatch):
    from ct_cncl.pipeline.node import send

    monkeypatch.setattr(send, "_REPORT_S", -1.0)
    with Destination() as there:
        one = QueuedJob(tmp_path, at(there.port, commit=True), tries=2)
        monkeypatch.setattr(send.commitment, "ask", lambda *_: None)
        states = []
        for _ in range(4):
            one.sending.look()
            states.append((one.state, one.delivery()["tries"]))
    assert states == [("sending", 0), ("sending", 1), ("failed", 2), ("failed", 2)]
    assert "no report of storage commitment" in one.jobs.get(1).error
    assert there.times == dict.fromkeys(one.uids, 1)


def test_other_destinations_do_not_wait(tmp_path):
    """Each has a thread: with one that says nothing, the other has everything at once."""
    with Destination() as good, Destination() as there, Proxy(there.port, back=450) as slow:
        one = QueuedJob(tmp_path, at(slow.port, turn_s=PATIENCE_S))
        other = QueuedJob(tmp_path / "other", at(good.port))
        thread = threading.Thread(target=one.sending.look, daemon=True)
        thread.start()
        other.look()
        assert (other.state, one.state, thread.is_alive()) == ("done", "sending", True)
