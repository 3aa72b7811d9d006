"""Sending: every object until it is accepted, over C-STORE and STOW-RS, plain or compressed, whatever the other side does."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pydicom
import pytest
from queued_job import QueuedJob
from tiny_node import Destination, free_port

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node.settings import Retry


def c_store(destination):
    return {"aet": destination.aet, "host": "127.0.0.1", "port": destination.port}


def test_every_object_once_and_done(tmp_path):
    with Destination() as there:
        one = QueuedJob(tmp_path, c_store(there))
        one.look(3)
        assert one.state == "done"
        assert there.times == dict.fromkeys(one.uids, 1)
        for dataset, hu in zip(sorted(there.series()["1.2.826.1"], key=lambda ds: ds.InstanceNumber), one.hu):
            np.testing.assert_array_equal(dataset.pixel_array, hu)
    assert json.loads((one.audit.path).read_text())["event"] == "delivered"


def test_what_was_accepted_before_a_stop_is_not_sent_again(tmp_path):
    with Destination() as there:
        one = QueuedJob(tmp_path, c_store(there))
        with one.jobs.database.change() as change:
            change.execute("INSERT INTO sent VALUES (1, 'there', ?)", (one.uids[1],))
        one.look()
        assert set(there.times) == {one.uids[0], one.uids[2]}
        assert one.state == "done"


def test_nobody_there_is_tried_again_and_fails_at_last(tmp_path):
    one = QueuedJob(tmp_path, {"aet": "PACS", "host": "127.0.0.1", "port": free_port()})
    one.look(2)
    assert (one.state, one.delivery()["tries"], one.delivery()["state"]) == ("sending", 2, "waiting")
    one.look(1)
    assert (one.state, one.delivery()["state"]) == ("failed", "failed")
    assert "there: Expected PACS at 127.0.0.1" in one.jobs.get(1).error


def test_pauses_grow_up_to_the_longest(tmp_path):
    one = QueuedJob(tmp_path, {"aet": "PACS", "host": "127.0.0.1", "port": free_port()}, tries=100)
    one.sending.settings = replace(one.sending.settings, retry=Retry(1.0, 5.0, 100))
    pauses = []
    for _ in range(4):
        one.look()
        row = one.delivery()
        pauses.append(row["next_try"] - row["changed"])
    assert pauses == pytest.approx([1, 2, 4, 5], abs=0.1)


@pytest.mark.parametrize(
    ("answer", "state"),
    [(0xB000, "done"), (0x0111, "done"), (0xA700, "sending"), (0xC000, "sending"), (0x0122, "sending")],
)
def test_answers(tmp_path, answer, state):
    with Destination(answer=answer) as there:
        one = QueuedJob(tmp_path, c_store(there))
        one.look()
        assert one.state == state
        if state == "sending":
            assert f"0x{answer:04X}" in one.delivery()["error"]
            there.answer = 0x0000
            one.look()
            assert one.state == "done"
            assert there.times == dict.fromkeys(one.uids, 1)


@pytest.mark.parametrize(
    ("wanted", "accepted", "got"),
    [
        ("as made", ["1.2.840.10008.1.2"], "1.2.840.10008.1.2"),
        ("compressed", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"], "1.2.840.10008.1.2.5"),
        ("compressed", ["1.2.840.10008.1.2.1"], "1.2.840.10008.1.2.1"),
        ("plain", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"], "1.2.840.10008.1.2.1"),
    ],
)
def test_as_the_destination_takes_it(tmp_path, wanted, accepted, got):
    with Destination(syntaxes=accepted) as there:
        one = QueuedJob(tmp_path, c_store(there) | {"syntax": wanted})
        one.look()
        assert one.state == "done"
        for dataset in there.series()["1.2.826.1"]:
            assert dataset.file_meta.TransferSyntaxUID == got
            np.testing.assert_array_equal(dataset.pixel_array, one.hu[dataset.InstanceNumber - 1])


def test_a_destination_that_takes_no_ct(tmp_path):
    with Destination(syntaxes=["1.2.840.10008.1.2.4.50"]) as there:
        one = QueuedJob(tmp_path, c_store(there))
        one.look()
        assert "accept" in one.delivery()["error"]


class Web:
    """A STOW-RS service that keeps what comes and refuses what it is told to."""

    def __init__(self):
        self.refuse, self.status, self.parts, self.headers = set(), 200, [], []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
                parts = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in content.split(b"--" + boundary)[1:-1]]
                web.headers.append((self.path, dict(self.headers)))
                taken, refused = [], []
                for part in parts:
                    uid = str(
                        pydicom.dcmread(pydicom.filebase.DicomBytesIO(part), stop_before_pixels=True).SOPInstanceUID
                    )
                    (refused if uid in web.refuse else taken).append((uid, part))
                web.parts += taken if web.status == 200 else []
                answer = (
                    {
                        "00081198": {
                            "vr": "SQ",
                            "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid, _ in refused],
                        }
                    }
                    if refused
                    else {}
                )
                body = json.dumps(answer).encode()
                self.send_response(202 if refused and web.status == 200 else web.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/dicom-web"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_stow_byte_for_byte(tmp_path):
    with Web() as web:
        one = QueuedJob(tmp_path, {"url": web.url, "headers": {"Authorization": "Bearer secret"}})
        one.look()
        assert one.state == "done"
        files = {path.read_bytes() for path in (one.sending.settings.spool / "results/00000001").iterdir()}
        assert {part for _, part in web.parts} == files
        path, headers = web.headers[0]
        assert (path, headers["Authorization"]) == ("/dicom-web/studies", "Bearer secret")


def test_stow_that_refuses_some_is_tried_again_with_those_alone(tmp_path):
    with Web() as web:
        one = QueuedJob(tmp_path, {"url": web.url})
        web.refuse = {one.uids[1]}
        one.look()
        assert one.state == "sending"
        assert "refused 1" in one.delivery()["error"]
        web.refuse = set()
        one.look()
        assert one.state == "done"
        assert [uid for uid, _ in web.parts] == [one.uids[0], one.uids[2], one.uids[1]]


@pytest.mark.parametrize("status", [401, 500, 503, 302])
def test_stow_that_fails(tmp_path, status):
    with Web() as web:
        web.status = status
        one = QueuedJob(tmp_path, {"url": web.url})
        one.look()
        assert one.state == "sending"
        assert str(status) in one.delivery()["error"]
        web.status = 200
        one.look()
        assert one.state == "done"


def test_stow_with_nobody_there(tmp_path):
    one = QueuedJob(tmp_path, {"url": f"http://127.0.0.1:{free_port()}/dicom-web"})
    one.look()
    assert "to answer" in one.delivery()["error"]


def test_a_job_that_is_dropped_while_it_is_sent_is_left_alone(tmp_path):
    with Destination() as there:
        one = QueuedJob(tmp_path, c_store(there))
        with one.jobs.database.change() as change:
            change.execute("UPDATE jobs SET state = 'done'")
        one.look()
        assert there.times == {}
