"""A node in its own process, senders that send to it, and a destination that counts what it receives."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pydicom
import yaml
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

CT = "1.2.840.10008.5.1.4.1.1.2"
PLAIN = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
PATIENCE_S = 240.0
"""How long a test waits for what must happen; much longer than that takes, because the machine may be busy."""
COMMAND = [sys.executable, "-c", "from ct_cncl.pipeline.cli import main; main()", "node"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(true, seconds=PATIENCE_S, every=0.05):
    """Wait for something to become true; returns its last value."""
    end = time.monotonic() + seconds
    while True:
        value = true()
        if value or time.monotonic() > end:
            return value
        time.sleep(every)


class Destination:
    """A C-STORE SCP that keeps what it receives: data sets and counts by SOP instance."""

    def __init__(self, aet="PACS", port=0, *, answer=0x0000, syntaxes=PLAIN, context=None, pause=0.0):
        self.aet, self.answer, self.syntaxes, self.context, self.pause = aet, answer, syntaxes, context, pause
        self.port = port or free_port()
        self.times, self.datasets = {}, {}
        self._lock = threading.Lock()
        self._server = None

    def _stored(self, event):
        time.sleep(self.pause)
        if self.answer != 0x0000:
            return self.answer
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        with self._lock:
            uid = str(dataset.SOPInstanceUID)
            self.times[uid] = self.times.get(uid, 0) + 1
            self.datasets.setdefault(uid, []).append(dataset)
        return 0x0000

    def start(self):
        ae = AE(self.aet)
        ae.add_supported_context(CT, self.syntaxes)
        ae.maximum_associations = 50
        self._server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._stored)],
            ssl_context=self.context,
        )
        return self

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def series(self):
        """Data sets by SeriesInstanceUID, each instance once."""
        with self._lock:
            found = {}
            for copies in self.datasets.values():
                found.setdefault(str(copies[0].SeriesInstanceUID), []).append(copies[0])
            return found


def config(folder, destination, weights, **changes):
    """A configuration with short times; ``changes`` go into the section node, except senders, destinations and rules."""
    node = {
        "aet": "NODE",
        "port": free_port(),
        "spool": "spool",
        "threads": 1,
        "complete": {"quiet_s": 0.5, "open_s": 300, "count_s": 300},
        "retry": {"first_s": 0.2, "longest_s": 1, "tries": 500},
        "limits": {"free_bytes": "1 MiB"},
        "page": {"port": free_port()},
        "stop_s": 20,
    }
    content = {
        "node": node,
        "senders": [{"aet": "SCANNER"}],
        "destinations": {"pacs": {"aet": destination.aet, "host": "127.0.0.1", "port": destination.port}}
        if destination
        else {},
        "rules": [{"name": "all", "weights": str(weights), "send": ["pacs"]}],
    }
    for key, value in changes.items():
        if key in content and key != "node":
            content[key] = value
        elif isinstance(value, dict) and isinstance(node.get(key), dict):
            node[key] |= value
        else:
            node[key] = value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Running:
    """``ct-cncl node`` as a process."""

    def __init__(self, path):
        self.path = path
        settings = yaml.safe_load(path.read_text())["node"]
        self.port, self.page, self.aet = settings["port"], settings["page"].get("port", 0), settings["aet"]
        self.spool = path.parent / settings["spool"]
        self.log = path.parent / "node.log"
        self.process = None

    def start(self, *, wait=True):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "--config", str(self.path)],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        if wait:
            assert until(self.answers), self.log.read_text()
        return self

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5):
                return True
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()

    def rows(self, query, *values):
        import sqlite3

        with sqlite3.connect(f"file:{self.spool}/node.db?mode=ro", uri=True, timeout=PATIENCE_S) as found:
            return found.execute(query, values).fetchall()

    def states(self):
        return [row[0] for row in self.rows("SELECT state FROM jobs ORDER BY id")]

    def audit(self):
        return [json.loads(line) for line in (self.spool / "audit.jsonl").read_text().splitlines()]


@contextmanager
def running(path):
    node = Running(path).start()
    try:
        yield node
        node.stop()
        assert "Traceback" not in node.log.read_text()
    finally:
        if node.process.poll() is None:
            node.kill()


def send(files, port, *, aet="SCANNER", called="NODE", tls=None, contexts=None, opening=PATIENCE_S, timeout=PATIENCE_S):
    """Send files by C-STORE over one association; returns the statuses, None if it was not established or broke."""
    ae = AE(aet)
    ae.connection_timeout = ae.acse_timeout = opening
    ae.dimse_timeout = ae.network_timeout = timeout
    datasets = [file if isinstance(file, pydicom.Dataset) else pydicom.dcmread(file) for file in files]
    wanted = contexts or [
        build_context(*pair)
        for pair in {(ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets}
    ]
    assoc = ae.associate(
        "127.0.0.1", port, wanted, ae_title=called, **({"tls_args": (tls, "localhost")} if tls else {})
    )
    if not assoc.is_established:
        return [None] * len(files)
    statuses = []
    for dataset in datasets:
        try:
            status = assoc.send_c_store(dataset)
        except (RuntimeError, ValueError):
            status = None
        statuses.append(status.Status if status else None)
    if assoc.is_established:
        assoc.release()
    return statuses


def files_of(folder: Path):
    return sorted(folder.rglob("*.dcm"))
