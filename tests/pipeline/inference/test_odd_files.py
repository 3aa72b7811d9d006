"""Odd things among scans and beside weights: told in one line that names the file, and no hindrance to the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_archive import write_series
from tiny_weights import Add, scripted, tiny_cncl

from ct_cncl.pipeline.common.csv_files import csv_text
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.find import search
from ct_cncl.transforms.series.volume_file import open_volume

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


class Square(torch.nn.Module):
    """Overflows where a value is beyond all reason; times infinity, everywhere."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * image * self.times


@pytest.mark.parametrize(
    ("times", "voxel", "words"),
    [
        (1.0, 1e30, "expected HU but got values up to 1e\\+30; replace them"),
        (float("inf"), 40.0, "expected finite HU from the network .*; use other weights"),
    ],
)
def test_results_that_are_no_numbers_blame_the_scan_or_the_weights(tmp_path, times, voxel, words):
    hu = np.full((2, 8, 8), -100, np.float32)
    hu[1, 2, 3] = voxel
    np.save(tmp_path / "a.npy", hu)
    weights = scripted(Square(times), tmp_path / "w" / "square.ts")
    with pytest.raises(ScanError, match=words):
        denoise_scans(tmp_path / "a.npy", tmp_path / "out", weights=weights, trust=True, progress=False)


def test_a_pipe_named_as_a_scan_is_passed_over_and_never_opened(tmp_path):
    """In a process with a time limit: who opens a pipe waits for its writer."""
    write_series(tmp_path / "in", 1)
    os.mkfifo(tmp_path / "in" / "pipe.dcm")
    code = "import sys; from ct_cncl.transforms.series.find import search; print(len(search(sys.argv[1]).scans))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "1\n", done.stderr
    code = "import sys; from ct_cncl.transforms.series.find import search; search(sys.argv[1] + '/pipe.dcm')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "expected a file or folder but got a device or a pipe" in done.stderr


def test_an_unreadable_sub_folder_is_one_failure(tmp_path, add, monkeypatch):
    write_series(tmp_path / "in" / "a", 1)
    write_series(tmp_path / "in" / "b", 2)
    own = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return own(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read whatever has which rights
    with pytest.raises(ScanError, match="1 scan is denoised, but 1 file cannot be read"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sorted(line["state"] for line in lines) == ["done", "failed"]
    assert "b: expected a readable folder but got Permission denied" in next(
        line["error"] for line in lines if line["error"]
    )


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading fails")
@pytest.mark.parametrize("name", ["b.nii", "b.dcm"])
def test_a_file_that_the_disk_does_not_give_is_one_failure(tmp_path, add, name):
    write_series(tmp_path / "in", 1)
    (tmp_path / "in" / name).symlink_to(
        "/proc/self/mem"
    )  # reading its beginning is an input/output error for root, too
    with pytest.raises(ScanError, match="1 scan is denoised, but 1 file cannot be read"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sorted(line["state"] for line in lines) == ["done", "failed"]
    (error,) = (line["error"] for line in lines if line["error"])
    assert f"{name}: expected a readable file but got Input/output error" in error


def test_folders_deeper_than_a_path_may_be_end_no_archive(tmp_path, add, monkeypatch):
    write_series(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path / "in")
    for _ in range(25):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScanError, match="1 scan is denoised, but 1 file cannot be read"):
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    (error,) = (line["error"] for line in lines if line["error"])
    assert "expected a readable folder but got File name too long" in error


def test_links_in_a_circle(tmp_path):
    write_series(tmp_path / "in", 1)
    (tmp_path / "in" / "x.dcm").symlink_to(tmp_path / "in" / "x.dcm")
    assert len(search(tmp_path / "in").scans) == 1


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '"x"', "[" * 100_000], ids=["cut", "list", "number", "text", "deep"]
)
def test_what_lies_beside_weights_is_named(tmp_path, content):
    path, _ = tiny_cncl(tmp_path)
    (tmp_path / "trained_on.json").write_text(content)
    with pytest.raises(ValueError, match="trained_on.json"):
        open_weights(path, CPU)
    (tmp_path / "trained_on.json").unlink()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json"):
        open_weights(path, CPU)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (
            "mha",
            "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementNumberOfChannels = x\nElementDataFile = LOCAL\n",
        ),
        (
            "mha",
            "NDims = 3\nDimSize = 99999999999 99999999999 99999999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
        ),
        ("nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nbyte skip: x\n\n"),
        ("nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 99999999999 99999999999 99999999\nencoding: raw\n\n"),
    ],
)
def test_damaged_heads_of_volumes_name_the_file(tmp_path, kind, head):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(head.encode() + bytes(128))
    with pytest.raises(ScanError, match=f"x.{kind}: expected a complete volume file") as caught:
        open_volume(kind, path, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_metadata_in_onnx_that_are_none(tmp_path, text):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from ct_cncl.pipeline.sharing.export import write_onnx

    write_onnx(Add(0.0).eval(), tmp_path / "x.onnx", slices=1, metadata={})
    model = onnx.load(tmp_path / "x.onnx")
    onnx.helper.set_model_props(model, {"metadata.json": text})
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"x\.onnx"):
        open_weights(tmp_path / "x.onnx", CPU)


def test_cells_that_a_spreadsheet_would_run_are_quoted():
    rows = [
        ["name", "psnr"],
        ["=cmd|'/c calc'!A0", -3.5],
        ["+1+1", "-3.5"],
        ["-x", 1],
        ["@SUM(A1)", np.float64(2)],
        ["a", "b"],
        ["\uff1d1+1", "\t=1"],
        ["\u200b =1", " a"],
    ]
    lines = csv_text(rows).splitlines()
    assert lines[1] == "'=cmd|'/c calc'!A0,-3.5"
    assert lines[2:] == ["'+1+1,-3.5", "'-x,1", "'@SUM(A1),2.0", "a,b", "'\uff1d1+1,'\t=1", "'\u200b =1, a"]
