"""A node that is killed repeatedly while senders send and its destination is sometimes down; and checks of what it delivers."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pydicom
from dicom_archive import write_series
from tiny_node import PATIENCE_S, Destination, Running, config, files_of, send, until
from tiny_weights import Add, scripted

OF_THE_MAKING = (
    "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime", "ContentDate", "ContentTime", "ContributionDateTime",
)  # fmt: skip


class Lives:
    """The lives of a node, one after another."""

    def __init__(self, path):
        helper = Path(__file__).parent / "node_lives.py"
        self.log = (path.parent / "node.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(helper), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, last):
        self.process.stdin.write(f"{last}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        """How the current life ended: the signal's number, or 0 for a clean exit."""
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.log.close()


def keep_sending(files, port, stopped):
    """Send like a scanner: whatever was not answered with success is sent again."""
    left = list(files)
    while left and not stopped.is_set():
        try:
            answers = send(left, port, opening=5, timeout=1.5)  # pynetdicom may miss that the other side is gone
        except Exception:  # the node died during the transfer
            answers = [None] * len(left)
        left = [file for file, answer in zip(left, answers) if answer != 0]
        stopped.wait(0.05)


def plain(dataset):
    """Everything that a result states, except when it was made."""
    return {
        element.tag: [plain(item) for item in element.value] if element.VR == "SQ" else element.value
        for element in dataset
        if element.keyword not in OF_THE_MAKING
    }


def undisturbed(folder, series, slices):
    """Series, weights, and the results of the series without a node."""
    from ct_cncl.pipeline.inference.api import denoise_scans

    weights = scripted(Add(25.0), folder / "add.ts")
    for number in range(1, series + 1):
        write_series(folder / "in" / str(number), number, slices=slices, NumberOfSeriesRelatedInstances=slices)
    denoise_scans(folder / "in", folder / "out", weights=weights, progress=False)
    expected = [pydicom.dcmread(path) for path in files_of(folder / "out")]
    assert len(expected) == series * slices
    return folder / "in", weights, {str(dataset.SOPInstanceUID): plain(dataset) for dataset in expected}


def run_kills(folder, source, weights, *, seed, kills, down_s=0.0, most_steps=45):
    """Kill a node under load at steps that the seed determines, and finally let it finish.

    Returns:
        The destination, with what came, and the node.
    """
    chance = random.Random(seed)
    there = Destination(pause=0.02).start()
    path = config(
        folder,
        there,
        weights,
        page={"on": False},
        complete={"quiet_s": 0.1, "open_s": 600, "count_s": 600},
        retry={"first_s": 0.1, "longest_s": 0.2},
    )
    node, lives, stopped = Running(path), Lives(path), threading.Event()
    folders = sorted(source.iterdir())
    senders = [
        threading.Thread(
            target=lambda mine=folders[k::3]: [keep_sending(files_of(one), node.port, stopped) for one in mine]
        )
        for k in range(3)
    ]
    down = sorted(chance.sample(range(1, kills), 2))
    up_again = None
    try:
        for sender in senders:
            sender.start()
        for kill in range(kills):
            if down and kill >= down[0] and up_again is None:
                down.pop(0)
                there.stop()
                up_again = time.monotonic() + down_s
            lives.begin(chance.randint(1, most_steps))
            assert lives.end() == signal.SIGKILL, (folder / "node.log").read_text()
            if up_again is not None and time.monotonic() >= up_again:
                there.start()
                up_again = None
        last = lives.begin(0)
        while up_again is not None or down:
            if up_again is None:
                down.pop(0)
                there.stop()
                up_again = time.monotonic() + down_s
            time.sleep(max(up_again - time.monotonic(), 0))
            there.start()
            up_again = None
        for sender in senders:
            sender.join(PATIENCE_S)
            assert not sender.is_alive()
        done = until(lambda: node.states() == ["done"] * len(folders), 2 * PATIENCE_S)
        assert done, (node.states(), (folder / "node.log").read_text()[-3000:])
        os.kill(last, signal.SIGTERM)
        assert lives.end() == 0
    finally:
        stopped.set()
        lives.close()
        there.stop()
    return there, node


def check(there, expected, kills):
    """Every object of every result is there, equal to the undisturbed one, and no others; each kill may cause one repetition."""
    got = {uid: plain(copies[0]) for uid, copies in there.datasets.items()}
    assert set(got) == set(expected)
    for uid, values in expected.items():
        assert got[uid] == values
        for copy in there.datasets[uid][1:]:
            assert plain(copy) == values
    assert sum(there.times.values()) - len(there.times) <= kills


def check_spool(node, series, slices):
    """Nothing half-written is left, and queue and disk agree."""
    assert not list((node.spool / "incoming").iterdir())
    assert not list((node.spool / "work").iterdir())
    known = {row[0] for row in node.rows("SELECT path FROM objects")}
    assert known == {
        path.relative_to(node.spool).as_posix() for path in (node.spool / "objects").rglob("*") if path.is_file()
    }
    assert len(known) == series * slices
    assert len(list((node.spool / "results").iterdir())) == series
