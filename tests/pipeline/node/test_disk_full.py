"""A disk that is full, a real one (a small tmpfs): refused with the right status, and on with it when there is room, with nothing lost."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from dicom_archive import write_series
from tiny_node import Destination, config, files_of, running, send, until
from tiny_weights import Add, scripted

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 24 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount a small disk")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_full_and_empty_again(small_disk, tmp_path):
    weights = scripted(Add(25.0), tmp_path / "add.ts")
    with Destination() as there:
        path = config(
            tmp_path,
            there,
            weights,
            spool=str(small_disk / "spool"),
            limits={"free_bytes": "256 KiB"},
            retry={"first_s": 0.3, "longest_s": 0.5},
        )
        hu = write_series(tmp_path / "in", 1, slices=12, side=256)
        files = files_of(tmp_path / "in")
        ballast = small_disk / "ballast"
        with running(path) as node:
            fill(ballast, small_disk, leave=5 * files[0].stat().st_size + 256 * 1024)
            answers = send(files, node.port)
            stored = answers.count(0)
            assert set(answers) == {0, 0xA700}
            assert 1 <= stored <= 6
            assert node.rows("SELECT COUNT(*) FROM objects") == [(stored,)]
            assert not list((node.spool / "incoming").iterdir())
            fill(ballast, small_disk, leave=0)  # not even the queue can be written now
            assert set(send(files[-2:], node.port)) == {0xA700}
            assert node.process.poll() is None
            ballast.unlink()
            assert until(lambda: node.states() == ["done"]), node.log.read_text()
            first = node.rows("SELECT COUNT(*) FROM members WHERE job = 1")[0][0]
            assert send(files, node.port) == [0] * 12  # what had been refused comes again
            assert until(lambda: node.states() == ["done", "done"]), node.log.read_text()
    assert first == stored
    whole = next(series for series in there.series().values() if len(series) == 12)
    for dataset in whole:
        np.testing.assert_array_equal(dataset.pixel_array, hu[dataset.InstanceNumber - 1] + 25)


def fill(ballast, disk, *, leave):
    """Take what is free but for some bytes."""
    free = shutil.disk_usage(disk).free
    with ballast.open("ab") as stream:
        try:
            stream.write(b"\0" * max(free - leave, 0))
            stream.flush()
        except OSError:  # full, as wanted
            return
