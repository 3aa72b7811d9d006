"""Senders that are silent, or send a byte now and then: each association ends in time, and what is half there goes."""

import signal
import socket
import struct
import time

import pytest
from dicom_archive import write_series
from slow_peers import Trickling
from tiny_node import CT, PATIENCE_S, config, files_of, free_port, running, send, until

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from pynetdicom import AE, build_context
from raw_store import COMMAND, PIECE, command_of, context_of, pdata

STALL_S, OBJECT_S, ASSOCIATION_S = 1, 2, 4


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    limits = {"stall_s": STALL_S, "object_s": OBJECT_S, "association_s": ASSOCIATION_S, "free_bytes": "1 MiB"}
    path = config(
        tmp_path_factory.mktemp("node"), None, "", workers=0, limits=limits, page={"on": False}, rules=[],
        complete={"quiet_s": 1, "open_s": 600},
    )  # fmt: skip
    with running(path) as found:
        yield found


def opened(node, classes=(CT, "1.2.840.10008.1.1")):
    ae = AE("SCANNER")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 4 * PATIENCE_S
    assoc = ae.associate("127.0.0.1", node.port, [build_context(name) for name in classes], ae_title="NODE")
    assert assoc.is_established
    return assoc


def lives(assoc):
    return assoc.is_alive() and assoc.is_established


def ends(assoc, meanwhile=lambda: None):
    """Whether the node ends it; this side would wait for longer."""
    return until(lambda: not lives(assoc) or meanwhile())


def is_cut_off(node, reason, meanwhile):
    """Whether the node ends an association for a reason; on a busy machine it may end one for silence first."""

    def once():
        assoc = opened(node)
        assert ends(assoc, lambda: meanwhile(assoc))
        return reason in node.log.read_text()

    return until(once)


def test_an_association_that_says_nothing(node):
    began = time.monotonic()
    assert ends(opened(node))
    assert time.monotonic() - began > STALL_S * 0.9


def test_an_association_that_goes_on_for_ever_ends_between_two_messages(node):
    def echo(assoc):
        time.sleep(STALL_S / 4)
        try:
            status = assoc.send_c_echo()
        except RuntimeError:  # it has ended
            return
        assert not status or status.Status == 0

    assert is_cut_off(node, f"cut off 127.0.0.1: an association that took more than {ASSOCIATION_S} s", echo)


def pieces_of_an_object(assoc):
    """A C-STORE request: the command, then the data set two bytes each, without end."""
    context = context_of(assoc)
    yield pdata(context, COMMAND, command_of("1.2.3.4"))
    while True:
        yield pdata(context, PIECE, b"\x08\x00")


def test_an_object_that_comes_two_bytes_at_a_time(node):
    pieces = {}

    def go_on(assoc):
        time.sleep(STALL_S / 5)
        try:
            assoc.dul.socket.socket.sendall(next(pieces.setdefault(assoc, pieces_of_an_object(assoc))))
        except (OSError, AttributeError):  # it was closed meanwhile
            assoc.abort()

    assert is_cut_off(node, f"cut off 127.0.0.1: an object that took more than {OBJECT_S} s", go_on)
    assert until(lambda: not list((node.spool / "incoming").iterdir()))
    assert node.rows("SELECT COUNT(*) FROM objects WHERE uid = '1.2.3.4'") == [(0,)]


def test_a_pdu_that_comes_byte_by_byte(node):
    """Each byte in time, the whole not."""
    with socket.create_connection(("127.0.0.1", node.port), PATIENCE_S) as one:
        one.sendall(struct.pack(">BBL", 1, 0, 1000))

        def is_closed():
            try:
                one.sendall(b"x")
            except ConnectionError:
                return True
            return False

        assert until(is_closed, every=STALL_S / 10)
    assert f"cut off 127.0.0.1: a PDU that took more than {STALL_S} s" in node.log.read_text()


def test_others_are_served_and_completed_meanwhile(node, tmp_path):
    """One sender trickles an object; the series of another is stored, and complete, without it."""
    assoc = opened(node)
    pieces = pieces_of_an_object(assoc)
    assoc.dul.socket.socket.sendall(next(pieces) + next(pieces))
    write_series(tmp_path, 5, slices=2, side=16)
    assert until(lambda: send(files_of(tmp_path), node.port) == [0, 0])
    assert until(lambda: node.states() == ["done"])  # no rule: ignored
    assoc.abort()


def test_a_stop_waits_neither_for_a_half_pdu_nor_for_a_silent_peer(tmp_path):
    with Trickling(b"\x02\x00\x00\x00\xff\xff", pause=0.5) as silent:
        count = {"aet": "PACS", "host": "127.0.0.1", "port": silent.port}
        path = config(
            tmp_path, None, "", workers=0, rules=[], page={"on": False}, stop_s=1, limits={"stall_s": 10 * PATIENCE_S, "free_bytes": "1 MiB"},
            senders=[{"aet": "SCANNER", "count": count}], port=free_port(),
        )  # fmt: skip
        with running(path) as node, socket.create_connection(("127.0.0.1", node.port), PATIENCE_S) as one:
            one.sendall(struct.pack(">BBL", 1, 0, 1000) + b"x" * 10)
            write_series(tmp_path / "in", 6, slices=1, side=16)
            assert send(files_of(tmp_path / "in"), node.port) == [0]
            time.sleep(1.0)
            node.process.send_signal(signal.SIGTERM)
            assert node.process.wait(PATIENCE_S) == 0
