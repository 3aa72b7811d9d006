"""What is unpacked into the system's temporary folder never stays there, whatever becomes of the process."""

import gzip
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from series_files import ct_series

from ct_cncl.transforms.common import temporary
from ct_cncl.transforms.common.temporary import temporary_folder
from ct_cncl.transforms.series import read_scan

READS = """
import sys, time
import ct_cncl.transforms.series as series
from ct_cncl.transforms.series import volume_file

def waits(*_, **__):
    print("unpacked", flush=True)
    time.sleep(60)

series.read_dicom = volume_file.check_dtype = waits  # what comes next once the files are unpacked
series.read_scan(sys.argv[1])
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for temporary files of this test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def files(place):
    return sorted(path.name for path in place.rglob("*") if path.is_file() and path.suffix != ".lock")


def zipped(folder):
    ct_series(folder / "series", [(0, 0, z) for z in range(3)])
    with zipfile.ZipFile(folder / "scan.zip", "w") as archive:
        for path in sorted((folder / "series").iterdir()):
            archive.write(path, path.name)
    return folder / "scan.zip"


def packed(folder):
    """A gzipped NRRD of 8 x 8 x 2."""
    head = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 2\nencoding: gzip\nendian: little\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    )
    (folder / "scan.nrrd").write_bytes(head.encode() + gzip.compress(np.full(128, -50, "<i2").tobytes()))
    return folder / "scan.nrrd"


@pytest.mark.parametrize("make", [zipped, packed])
def test_a_reader_killed_leaves_a_scan_for_the_next_to_remove(tmp_path, place, make):
    scan = make(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", READS, str(scan)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "unpacked\n"
    with temporary_folder():  # while it lives, its files stay
        assert files(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert files(place)
    read_scan(scan)
    assert files(place) == []
    assert [path.name for path in place.rglob("*")] == [f"ct-cncl-{os.getuid()}"]


def test_only_its_owner_can_look_in(place):
    with temporary_folder() as folder:
        assert folder.parent.stat().st_mode & 0o077 == 0
        assert list(folder.iterdir()) == []


def test_one_within_another_stays(place):
    with temporary_folder() as outer:
        (outer / "x").touch()
        with temporary_folder():
            assert (outer / "x").exists()
        assert (outer / "x").exists()


@pytest.mark.parametrize("trap", ["link", "open", "file"])
def test_a_folder_that_another_may_have_made_is_refused(tmp_path, place, trap):
    base = place / f"ct-cncl-{temporary._USER}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if trap == "link":
        base.symlink_to(tmp_path / "elsewhere")
    elif trap == "open":
        base.mkdir()
        base.chmod(0o777)
    else:
        base.touch()
    with pytest.raises(OSError, match=r"ct-cncl-") as caught, temporary_folder():
        pass
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "elsewhere").iterdir()) == []
