"""Files and links that cannot be read: named, counted by what they are, and enough for --strict to refuse."""

import json

import numpy as np
import pytest
from series_files import POSITIONS, ct_series, ct_slice, save
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.series import ScanError


@pytest.fixture
def add(tmp_path):
    return scripted(Add(0.0), tmp_path / "add.ts")


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def series(folder, count=3):
    return ct_series(folder, POSITIONS[:count], StudyInstanceUID="1.9", InstanceNumber=1)


def test_slices_behind_dead_links_are_missed(tmp_path, add, capsys):
    series(tmp_path / "in")
    (tmp_path / "in" / "0005.dcm").symlink_to("../annex/none")
    (path,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add)
    assert len(list(path.iterdir())) == 3
    said = capsys.readouterr()
    assert "passed over 1 x links that lead nowhere (0005.dcm)" in said.out
    assert "got 1 that cannot be read and may hold slices of it" in said.err
    assert "may hold slices of it" in manifest(tmp_path / "out")[0]["warnings"][0]
    with pytest.raises(ScanError, match="may hold slices of it; omit --strict"):
        denoise_scans(tmp_path / "in", tmp_path / "strict", weights=add, strict=True, progress=False)


def test_strict_counts_what_lies_elsewhere_too(tmp_path, add):
    series(tmp_path / "in" / "a")
    (tmp_path / "in" / "b").symlink_to("../not_mounted")
    with pytest.raises(ScanError, match=r"read everything there \(--strict\) but passed over 1 x links .*\(b\)"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, strict=True, progress=False)
    assert manifest(tmp_path / "out")[0]["state"] == "done"


def test_no_usable_file_at_all_says_why_on_the_terminal(tmp_path, add, capsys):
    for k in range(3):
        path = save(ct_slice(np.zeros((4, 6), int), POSITIONS[k]), tmp_path / "in" / f"{k}.dcm")
        path.write_bytes(path.read_bytes().replace(b"0.5\\0.5", b"0,5\\0,5"))
    with pytest.raises(ScanError) as caught:
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert "expected a scan but none can be put together: 3 files cannot be read (" in str(caught.value)
    assert "0,5" in str(caught.value)
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in errors if ": error: " in line] == ["0.dcm", "1.dcm", "2.dcm"]


def test_a_stray_file_is_no_failed_scan(tmp_path, add, capsys):
    series(tmp_path / "in")
    (tmp_path / "in" / "9.dcm").write_bytes(b"<html>404</html>")
    with pytest.raises(ScanError, match=r"1 scan is denoised, but 1 file cannot be read \(.*9.dcm: .*without the DICM"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    assert len(list((tmp_path / "out" / "in_series002_denoised").iterdir())) == 3
    assert "9.dcm: error: " in capsys.readouterr().err
