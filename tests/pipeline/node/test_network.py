"""What comes over the network, friendly or not: refused or served, never a traceback, and the memory stays flat."""

import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_node import CT, PATIENCE_S, config, files_of, free_port, running, send, until

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from pynetdicom import AE, build_context
from raw_store import COMMAND, PIECE, command_of, context_of, pdata

STALL_S = 2


def started(folder, stall_s):
    """A node without workers: what is received stays received."""
    limits = {"stall_s": stall_s, "associations": 6, "connections": 40, "object_bytes": "1 MiB", "free_bytes": "1 MiB"}
    path = config(
        folder, None, "", workers=0, limits=limits, page={"on": False}, rules=[], complete={"quiet_s": 3600, "open_s": 3600},
        senders=[{"aet": "SCANNER"}, {"aet": "FAR", "addresses": ["10.1.2.3"]}],
    )  # fmt: skip
    return running(path)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """One that cuts off nobody because the machine is busy."""
    with started(tmp_path_factory.mktemp("node"), 4 * PATIENCE_S) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """One whose callers must not pause."""
    with started(tmp_path_factory.mktemp("impatient"), STALL_S) as found:
        yield found


def memory(node):
    """Resident MiB of the node's own process."""
    text = Path(f"/proc/{node.process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(autouse=True)
def _alive(request):
    node = request.getfixturevalue("impatient" if "impatient" in request.fixturenames else "node")
    before = memory(node)
    yield
    assert until(lambda: echo(node) == 0), "it does not answer any more"
    assert "Traceback" not in node.log.read_text()
    assert memory(node) < before + 60


def association(node, aet="SCANNER", called="NODE", classes=("1.2.840.10008.1.1",), patience=2 * PATIENCE_S):
    ae = AE(aet)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = patience
    return ae.associate("127.0.0.1", node.port, [build_context(name) for name in classes], ae_title=called)


def echo(node):
    assoc = association(node, patience=10)
    if not assoc.is_established:
        return None
    status = assoc.send_c_echo()
    assoc.release()
    return status.Status if status else None


def test_echo(node):
    assert echo(node) == 0


@pytest.mark.parametrize(("aet", "called"), [("STRANGER", "NODE"), ("SCANNER", "OTHER"), ("FAR", "NODE")])
def test_who_is_not_listed_is_rejected_for_good(node, aet, called):
    assoc = association(node, aet, called)
    assert assoc.is_rejected
    assert assoc.acceptor.primitive.result == 1


def test_what_is_no_ct_is_not_accepted(node):
    assoc = association(node, classes=["1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"])
    accepted = [context.abstract_syntax for context in assoc.accepted_contexts]
    assoc.release()
    assert accepted == ["1.2.840.10008.1.1"]


def test_every_syntax_that_denoise_reads_is_accepted(node):
    plain = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"]
    coded = [
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
    ]
    enhanced = "1.2.840.10008.5.1.4.1.1.2.1"
    ae = AE("SCANNER")
    wanted = [build_context(name, [syntax]) for name in (CT, enhanced) for syntax in [*plain, *coded]]
    assoc = ae.associate("127.0.0.1", node.port, wanted, ae_title="NODE")
    assert len(assoc.accepted_contexts) == len(wanted)
    assoc.release()


def test_an_object_that_is_too_large_is_out_of_resources(node, tmp_path):
    write_series(tmp_path, 77, slices=1)
    dataset = pydicom.dcmread(tmp_path / "000.dcm")
    side = 2048
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = np.zeros((side, side), np.int16).tobytes()
    assert send([dataset], node.port) == [0xA700]
    assert node.rows("SELECT COUNT(*) FROM objects WHERE series = '1.2.826.77'") == [(0,)]
    assert not list((node.spool / "incoming").iterdir())


def test_several_associations_at_once(node, tmp_path):
    answers = []

    def one(number):
        write_series(tmp_path / str(number), 100 + number, slices=30, side=16)
        answers.extend(send(files_of(tmp_path / str(number)), node.port))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 120
    counts = node.rows("SELECT series, COUNT(*) FROM objects WHERE series LIKE '1.2.826.10_' GROUP BY series")
    assert sorted(counts) == [(f"1.2.826.{100 + number}", 30) for number in range(4)]
    assert node.rows("SELECT COUNT(*) FROM jobs WHERE series LIKE '1.2.826.10_'") == [(4,)]


def test_one_series_over_several_associations_is_one_job(node, tmp_path):
    write_series(tmp_path, 200, slices=20, side=16)
    files = files_of(tmp_path)
    threads = [threading.Thread(target=send, args=(files[k::4], node.port)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert node.rows("SELECT COUNT(*) FROM members JOIN jobs ON job = id WHERE series = '1.2.826.200'") == [(20,)]
    assert node.rows("SELECT COUNT(*) FROM jobs WHERE series = '1.2.826.200'") == [(1,)]


def garbage(kind):
    if kind == "http":
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    if kind == "noise":
        return np.random.default_rng(1).bytes(100000)
    if kind == "a PDU of 4 GiB":
        return struct.pack(">BBL", 1, 0, 2**32 - 1) + b"x" * 10**6
    if kind == "an abort":
        return struct.pack(">BBLL", 7, 0, 4, 0)
    if kind == "data before an association":
        return struct.pack(">BBL", 4, 0, 100) + b"x" * 100
    return struct.pack(">BBL", 1, 0, 200) + b"\xff" * 200


@pytest.mark.parametrize(
    "kind", ["http", "noise", "a PDU of 4 GiB", "an abort", "data before an association", "an association of nonsense"]
)
def test_garbage(impatient, kind):
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", impatient.port), PATIENCE_S) as one:
            one.settimeout(PATIENCE_S)
            try:
                one.sendall(garbage(kind))
                while one.recv(4096):
                    pass
            except ConnectionError:  # closed at once: as good
                continue


def test_garbage_without_end_does_not_fill_the_log(impatient):
    before = impatient.log.read_text().count("Unknown PDU")
    with socket.create_connection(("127.0.0.1", impatient.port), PATIENCE_S) as one:
        one.settimeout(PATIENCE_S)
        with suppress(ConnectionError):
            for _ in range(10**5):
                one.sendall(bytes(6000))
    assert impatient.log.read_text().count("Unknown PDU") - before == 1


def test_a_half_pdu_that_stalls_is_closed(impatient):
    with socket.create_connection(("127.0.0.1", impatient.port), PATIENCE_S) as one:
        one.sendall(struct.pack(">BBL", 1, 0, 1000) + b"x" * 10)
        one.settimeout(PATIENCE_S)
        with suppress(ConnectionError):
            while one.recv(100):
                pass


def test_an_object_that_stalls_leaves_nothing(impatient, tmp_path):
    """The peer goes silent in the middle of an object: the association ends, and the half object is nowhere."""
    assoc = association(impatient, classes=[CT])
    stream = assoc.dul.socket.socket
    context = context_of(assoc)
    stream.sendall(pdata(context, COMMAND, command_of("1.2.3.4")))
    stream.sendall(pdata(context, PIECE, b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"))
    assert until(lambda: not assoc.is_alive() or not assoc.is_established)
    assoc.abort()
    assert impatient.rows("SELECT COUNT(*) FROM objects WHERE uid = '1.2.3.4'") == [(0,)]
    assert until(lambda: not list((impatient.spool / "incoming").iterdir()))


def test_two_hundred_connections_at_once(impatient):
    held = []
    try:
        for _ in range(200):
            one = socket.create_connection(("127.0.0.1", impatient.port), PATIENCE_S)
            held.append(one)
        assert threads_of(impatient) < 40 * 2 + 60
        assert until(lambda: echo(impatient) == 0)  # as soon as those that say nothing are gone
    finally:
        for one in held:
            one.close()


def threads_of(node):
    return len(list(Path(f"/proc/{node.process.pid}/task").iterdir()))


def test_more_associations_than_allowed_are_told_to_come_again(node):
    def all_six():
        """They, or none while threads of earlier connections are still ending."""
        held = [association(node) for _ in range(6)]
        if all(one.is_established for one in held):
            return held
        for one in held:
            one.abort()
        return None

    held = until(all_six, every=0.5)
    assert held
    more = association(node)
    assert more.is_rejected
    assert more.acceptor.primitive.result == 2  # transient
    for one in held:
        one.release()


def test_a_taken_port_is_one_line(node, tmp_path):
    import subprocess

    from tiny_node import COMMAND

    path = config(tmp_path, None, "", rules=[], port=node.port, page={"on": False, "port": free_port()})
    done = subprocess.run(
        [*COMMAND, "--config", str(path)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert f"Expected to listen on 127.0.0.1 port {node.port}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
