"""An object of more than 2 GiB: refused or served as the limits say, and never in memory."""

import os
import struct
from pathlib import Path

import pydicom
import pytest
from dicom_archive import write_series
from tiny_node import CT, PATIENCE_S, config, running, until

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode
from raw_store import COMMAND, LAST, PIECE, command_of, context_of, pdata

SIDE, AT_ONCE = 32768, 2**16
MIB = 2**20


def memory(node):
    """Resident MiB of the node's own process."""
    text = Path(f"/proc/{node.process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def stored(node, dataset):
    """The status that an object of 2 GiB of pixels is answered with, and the node's memory at most."""
    ae = AE("SCANNER")
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 4 * PATIENCE_S
    assoc = ae.associate("127.0.0.1", node.port, [build_context(CT, "1.2.840.10008.1.2.1")], ae_title="NODE")
    assert assoc.is_established
    assoc._reactor_checkpoint.clear()  # as send_c_store does: the answer is for this thread
    assert until(lambda: assoc._is_paused)
    context, stream, most = context_of(assoc), assoc.dul.socket.socket, 0.0
    stream.sendall(pdata(context, COMMAND, command_of(dataset.SOPInstanceUID)))
    size = SIDE * SIDE * 2
    head = encode(dataset, False, True) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size)
    stream.sendall(pdata(context, PIECE, head))
    piece = pdata(context, PIECE, bytes(AT_ONCE))
    for number in range(size // AT_ONCE - 1):
        stream.sendall(piece)
        if number % 512 == 0:
            most = max(most, memory(node))
    stream.sendall(pdata(context, LAST, bytes(AT_ONCE)))
    _, answer = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    most = max(most, memory(node))
    assoc.release()
    return answer.Status, most


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "status"), [("1 GiB", 0xA700), ("4 GiB", 0x0000)])
def test_more_than_two_gib(tmp_path, limit, status):
    write_series(tmp_path / "in", 1, slices=1)
    dataset = pydicom.dcmread(tmp_path / "in/000.dcm")
    dataset.Rows = dataset.Columns = SIDE
    del dataset.PixelData
    limits = {"object_bytes": limit, "free_bytes": "1 MiB"}
    path = config(tmp_path, None, "", workers=0, rules=[], page={"on": False}, limits=limits)
    with running(path) as node:
        before = memory(node)
        try:
            got, most = stored(node, dataset)
            kept = [file.stat().st_size for file in (node.spool / "objects").rglob("*") if file.is_file()]
        finally:
            for file in node.spool.rglob("*.dcm"):
                file.unlink()
    assert got == status
    assert most < before + 60
    assert not list((node.spool / "incoming").iterdir())
    assert [size > SIDE * SIDE * 2 for size in kept] == [True] * (status == 0)
