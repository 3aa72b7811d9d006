"""Contrast kept of files: scans with inserts out, a method's two results in, figures by patient."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from series_files import nifti

from ct_cncl.transforms.common.errors import DataError, OutputError

AFFINE = np.diag([-0.8, -0.8, 4.0, 1.0])


def scans(folder, count):
    folder.mkdir()
    inside = np.hypot(*np.mgrid[-80:80, -70:70]) < 66
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 15, (160, 140, 2))
        hu = np.where(inside[..., None], 40.0, -900.0) + noise
        nifti(folder / f"p{number}_scan.nii.gz", hu.astype(np.float32), AFFINE)


def method(source, out, keep):
    """Keeps so much of everything around 40 HU, of each patient another share."""
    out.mkdir()
    for number, path in enumerate(sorted(source.glob("*.nii.gz"))):
        image = nib.load(path)
        hu = image.get_fdata()
        nifti(
            out / path.name.replace(".nii", "_mine.nii"),
            (40 + keep[number] * (hu - 40)).astype(np.float32),
            image.affine,
        )


@pytest.mark.parametrize("count", [2, 6])
def test_a_method_s_files_are_judged_by_patient(tmp_path, command, count):
    keep = np.linspace(0.5, 0.7, count)
    scans(tmp_path / "scans", count)
    code, text, errors = command("evaluate", tmp_path / "scans", "--inserts", tmp_path / "with")
    assert code == 0, errors
    manifest = json.loads((tmp_path / "with" / "inserts.json").read_text())
    total = sum(len(entry["places"]) for entry in manifest["scans"])
    assert text.startswith(f"{total} inserts written")
    assert total >= 8 * count
    for folder in ("scans", "with"):
        method(tmp_path / folder, tmp_path / f"{folder}_mine", keep)
    arguments = ["evaluate", *(tmp_path / name for name in ("scans", "scans_mine", "with_mine"))]
    code, text, errors = command(*arguments, "--inserts", tmp_path / "with", "--out", tmp_path / "report")
    assert code == 0, errors
    assert "60 % of 14 HU, 3 mm" in text
    assert "60 % of the noise is left" in text
    assert (tmp_path / "report" / "report.html").is_file()
    with (tmp_path / "report" / "inserts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["contrast kept %"]) for row in rows] == pytest.approx([60] * 4, abs=0.1)
    assert [row["patients"] for row in rows] == [str(count)] * 4
    assert [bool(row["its 95 %"]) for row in rows] == [count >= 6] * 4  # no interval over fewer than six patients
    assert sum(int(row["inserts"]) for row in rows) == total
    code, _, errors = command(*arguments, "--inserts", tmp_path / "with", "--out", tmp_path / "report")
    assert code == 1
    assert "--overwrite" in errors


def test_what_does_not_belong_together_is_said(tmp_path, command):
    scans(tmp_path / "scans", 1)
    code, _, errors = command("evaluate", tmp_path / "scans", tmp_path / "scans", "--inserts", tmp_path / "no")
    assert code == 1
    assert "got 1 results and no --out" in errors
    both = ("evaluate", tmp_path / "scans", tmp_path / "scans", tmp_path / "scans", "--out", tmp_path / "out")
    code, _, errors = command(*both, "--inserts", tmp_path / "no")
    assert code == 1
    assert "Expected inserts.json in" in errors
    assert command("evaluate", tmp_path / "scans", "--inserts", tmp_path / "with")[0] == 0
    code, _, errors = command("evaluate", tmp_path / "scans", "--inserts", tmp_path / "with")
    assert code == 1
    assert "holds files" in errors
    content = json.loads((tmp_path / "with" / "inserts.json").read_text())
    content["scans"][0]["shape"][2] = 9
    (tmp_path / "with" / "inserts.json").write_text(json.dumps(content))
    code, _, errors = command(*both, "--inserts", tmp_path / "with")
    assert code == 1
    assert "Write the scans with inserts again" in errors
    assert issubclass(DataError, ValueError)


def test_air_alone_has_no_place(tmp_path, command):
    nifti(tmp_path / "a.nii", np.random.default_rng(0).normal(-900, 10, (40, 40, 2)).astype(np.float32), AFFINE)
    code, _, errors = command("evaluate", tmp_path / "a.nii", "--inserts", tmp_path / "with")
    assert code == 1
    assert "soft tissue with room for inserts" in errors


def test_scans_are_never_replaced_by_those_with_inserts(tmp_path, command):
    """A folder that holds anything is refused: that of the scans themselves, too."""
    scans(tmp_path / "scans", 1)
    before = (tmp_path / "scans" / "p0_scan.nii.gz").read_bytes()
    code, _, errors = command("evaluate", tmp_path / "scans", "--inserts", tmp_path / "scans")
    assert code == 1
    assert "Choose another" in errors
    assert (tmp_path / "scans" / "p0_scan.nii.gz").read_bytes() == before
    assert [path.name for path in (tmp_path / "scans").iterdir()] == ["p0_scan.nii.gz"]


def test_the_table_comes_last_and_nothing_else_is_left(tmp_path, command, monkeypatch):
    """A run that was killed while it wrote its report does not look done."""
    scans(tmp_path / "scans", 1)
    assert command("evaluate", tmp_path / "scans", "--inserts", tmp_path / "with")[0] == 0
    results = [tmp_path / "scans", tmp_path / "with"]
    arguments = ["evaluate", tmp_path / "scans", *results, "--inserts", tmp_path / "with", "--out", tmp_path / "out"]

    def full(*_):
        raise OutputError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("ct_cncl.pipeline.report.evaluation_page.write_page", full)
        assert command(*arguments)[0] == 1
    assert not (tmp_path / "out").exists()
    assert command(*arguments)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("curves.csv", "evaluation.json", "inserts.csv", "report.html")
    ]
