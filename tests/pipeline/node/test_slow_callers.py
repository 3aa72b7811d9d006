"""Senders that are silent, or send a byte now and then: each association ends in time, and what is half there goes."""

import itertools
import signal
import socket
import struct
import time

import pydicom
import pytest
from dicom_archive import write_series
from slow_peers import Trickling
from tiny_node import CT, config, files_of, free_port, running, send, until

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode

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
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    assoc = ae.associate("127.0.0.1", node.port, [build_context(name) for name in classes], ae_title="NODE")
    assert assoc.is_established
    return assoc


def lives(assoc):
    return assoc.is_alive() and assoc.is_established


def seconds_until_it_ends(assoc, meanwhile=lambda: None):
    began = time.monotonic()
    while lives(assoc) and time.monotonic() - began < 20:
        meanwhile()
        time.sleep(0.05)
    return time.monotonic() - began


def test_an_association_that_says_nothing(node):
    assert STALL_S * 0.9 < seconds_until_it_ends(opened(node)) < STALL_S + 3


def test_an_association_that_goes_on_for_ever_ends_between_two_messages(node):
    assoc = opened(node)

    def echo():
        time.sleep(STALL_S / 4)
        if lives(assoc):
            status = assoc.send_c_echo()
            assert not status or status.Status == 0

    assert ASSOCIATION_S * 0.8 < seconds_until_it_ends(assoc, echo) < ASSOCIATION_S + 4


def pieces_of_an_object(assoc):
    """P-DATA of a C-STORE: the command, then the data set two bytes each, without end."""
    context = next(one.context_id for one in assoc.accepted_contexts if one.abstract_syntax == CT)
    command = pydicom.Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = CT, 1, 1
    command.Priority, command.CommandDataSetType, command.AffectedSOPInstanceUID = 0, 1, "1.2.3.4"
    coded = encode(command, True, True)
    coded = struct.pack("<HHLL", 0, 0, 4, len(coded)) + coded
    for header, content in itertools.chain([(3, coded)], itertools.repeat((0, b"\x08\x00"))):
        value = struct.pack(">LBB", len(content) + 2, context, header) + content
        yield struct.pack(">BBL", 4, 0, len(value)) + value


def test_an_object_that_comes_two_bytes_at_a_time(node):
    assoc = opened(node)
    stream, pieces = assoc.dul.socket.socket, pieces_of_an_object(assoc)

    def go_on():
        time.sleep(STALL_S / 5)
        try:
            stream.sendall(next(pieces))
        except OSError:  # it was closed meanwhile
            assoc.abort()

    assert OBJECT_S * 0.8 < seconds_until_it_ends(assoc, go_on) < OBJECT_S + 3
    assert until(lambda: not list((node.spool / "incoming").iterdir()), 10)
    assert node.rows("SELECT COUNT(*) FROM objects WHERE uid = '1.2.3.4'") == [(0,)]


def test_a_pdu_that_comes_byte_by_byte(node):
    """Each byte in time, the whole not."""
    with socket.create_connection(("127.0.0.1", node.port), 5) as one:
        one.settimeout(0.01)
        began = time.monotonic()
        one.sendall(struct.pack(">BBL", 1, 0, 1000))
        try:
            while time.monotonic() - began < 20:
                one.sendall(b"x")
                time.sleep(STALL_S / 10)
        except OSError:
            pass
        assert time.monotonic() - began < 2 * STALL_S + 3


def test_others_are_served_and_completed_meanwhile(node, tmp_path):
    """One sender trickles an object; the series of another is stored, and complete, without it."""
    assoc = opened(node)
    pieces = pieces_of_an_object(assoc)
    assoc.dul.socket.socket.sendall(next(pieces) + next(pieces))
    write_series(tmp_path, 5, slices=2, side=16)
    assert send(files_of(tmp_path), node.port) == [0, 0]
    assert until(lambda: node.states() == ["done"], 10)  # no rule: ignored
    assoc.abort()


def test_a_stop_waits_neither_for_a_half_pdu_nor_for_a_silent_peer(tmp_path):
    with Trickling(b"\x02\x00\x00\x00\xff\xff", pause=0.5) as silent:
        count = {"aet": "PACS", "host": "127.0.0.1", "port": silent.port}
        path = config(
            tmp_path, None, "", workers=0, rules=[], page={"on": False}, stop_s=1, limits={"stall_s": 100, "free_bytes": "1 MiB"},
            senders=[{"aet": "SCANNER", "count": count}], port=free_port(),
        )  # fmt: skip
        with running(path) as node, socket.create_connection(("127.0.0.1", node.port), 5) as one:
            one.sendall(struct.pack(">BBL", 1, 0, 1000) + b"x" * 10)
            write_series(tmp_path / "in", 6, slices=1, side=16)
            assert send(files_of(tmp_path / "in"), node.port) == [0]
            time.sleep(1.0)
            began = time.monotonic()
            node.process.send_signal(signal.SIGTERM)
            assert node.process.wait(30) == 0
            assert time.monotonic() - began < 8
