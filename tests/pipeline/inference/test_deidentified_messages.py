"""With --deidentify nothing of a file or its name is in what is said and written, also where it cannot be read."""

import json
import subprocess
import sys
import warnings

import pydicom
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.common.redaction import redacted
from ct_cncl.transforms.series import ScanError

pytest.importorskip("dicomanonymizer", reason="needs dicom-anonymizer")
# None is short and made of digits alone: UIDs and digests are long and random, and a bare year turns up in one of them now and then.
SECRETS = ("FAMILY", "FIRST", "born1951", "ward", "7.8.9.", "19510203")


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new.ljust(len(old))[: len(old)]))


def write_all(root):
    """Good and bad series in folders that are called as the patient is."""
    folder = root / "ward 3" / "FAMILY FIRST born1951"
    write_series(folder / "good", 1, uid="7.8.9.1")
    write_series(folder / "slope", 2, uid="7.8.9.2")
    for path in (folder / "slope").iterdir():
        ds = pydicom.dcmread(path)
        ds.RescaleSlope = "1.00000000000"
        ds.save_as(path)
        replaced(path, b"1.00000000000", b"FAMILY^FIRST")
    write_series(folder / "position", 3, uid="7.8.9.3", ImagePositionPatient=[0, 0, 1])
    write_series(folder / "cut", 4, uid="7.8.9.4", PixelData=b"\0\0")
    write_series(folder / "units", 5, uid="7.8.9.5", RescaleType="FAMILY")
    write_series(folder / "body", 6, uid="7.8.9.6", BodyPartExamined="FAMILY FIRST")
    write_series(folder / "sr", 7, uid="7.8.9.7", Modality="FAMILY", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    (folder / "FAMILY.dcm").write_bytes(b"x")
    (folder / "FAMILY.nii").write_bytes(b"x")


def everything(out):
    return "".join(path.read_bytes().decode("latin-1") for path in sorted(out.rglob("*")) if path.is_file())


def test_an_archive_of_the_bad(tmp_path, add, capfd):
    write_all(tmp_path / "in")
    with pytest.raises(ScanError, match="failed") as caught:
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, deidentify=True)
    captured = capfd.readouterr()
    names = "".join(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
    texts = [captured.out, captured.err, names, everything(tmp_path / "out"), str(caught.value)]
    for secret in SECRETS:
        assert not any(secret in text for text in texts), secret
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sum(line["state"] == "done" for line in lines) >= 2
    errors = [line["error"] for line in lines if line["error"]]
    assert len(errors) >= 5
    assert all("expected" in error and "but got" in error for error in errors), errors


def test_a_single_scan_on_the_terminal(tmp_path, add):
    """In a process of its own, so that pydicom's warnings are seen, too."""
    folder = tmp_path / "in" / "ward 3" / "FAMILY FIRST born1951"
    write_series(folder, 2, uid="7.8.9.2", PatientBirthDate="19510203", RescaleType="FAMILY")
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "denoise",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, "--weights", str(add), "--device", "cpu", "--deidentify"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected HU but got values stated in ...")
    assert len(done.stderr.splitlines()) == 1
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # of the test's own writing
def test_warnings_of_pydicom_say_no_uid(tmp_path, add):
    write_series(tmp_path / "in" / "a", 1, uid="7.8.9.01", StudyInstanceUID="7.8.9.x.FAMILY")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, deidentify=True, progress=False)
    assert not any(secret in str(one.message) for one in caught for secret in SECRETS)


def test_one_uid_for_two_studies_names_no_folder(tmp_path, add, capfd):
    """Regression: the search said which folder it was, and folders are called as patients are."""
    folder = tmp_path / "ward 3" / "FAMILY FIRST born1951"
    write_series(folder / "a", 1, uid="7.8.9.1", StudyInstanceUID="7.8.9.8")
    write_series(folder / "b", 2, uid="7.8.9.1", StudyInstanceUID="7.8.9.9")
    denoise_scans(folder, tmp_path / "out", weights=add, deidentify=True)
    said = "".join(capfd.readouterr())
    assert "warning: one SeriesInstanceUID stands for 2 studies and 2 series numbers; each is taken by itself" in said
    assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize(
    "text", ["FAMILY FIRST", "Müller", "1951-02-03", "02/03/1951", "MRN12345", "1.2.826.0.1", "12345", "/home/x"]
)
def test_nothing_that_came_from_outside_is_left(text):
    message = f"expected HU but got values stated in {text}: a map, not a CT image; choose the CT series"
    assert redacted(message).startswith(
        "expected HU but got values stated in ... a map, not a CT image; choose the CT series"
    )


def test_what_is_our_own_stays():
    for text in (
        "expected slices every 2.50 mm but got 1 missing, the first between 5.00 and 10.00 mm",
        "noise of 60 HU lies outside the 10 to 20 HU of the training data",
        "expected a BodyPart",
    ):
        assert redacted(text) == text.replace("BodyPart", "...")
