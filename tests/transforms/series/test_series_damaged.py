"""Damaged and cut files through ``denoise``: a result or one clear line each, and the input folder stays as it was."""

import os

import nibabel as nib
import numpy as np
import pydicom
import pytest
from enhanced_files import valid_enhanced
from pydicom.uid import RLELossless
from series_files import ct_slice, save
from tiny_weights import Add, scripted

from ct_cncl.pipeline.cli.app import one_line
from ct_cncl.pipeline.inference.api import denoise_scans

TIMES = int(os.environ.get("EXAMPLES", "30"))
SEED = int(os.environ.get("SEED", "0"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom names what it doubts


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(3.0), tmp_path_factory.mktemp("weights") / "add.ts")


def classic(path):
    stored = np.random.default_rng(0).integers(0, 2000, (8, 6))
    extra = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "PatientName": "Roe^R", "StudyDate": "20200102",
             "SeriesDescription": "Thorax", "KVP": "120", "ContrastBolusAgent": "agent", "SpecificCharacterSet": "ISO_IR 100",
             "LossyImageCompression": "00", "WindowCenter": "40", "SmallestImagePixelValue": 0}  # fmt: skip
    return save(ct_slice(stored, (0, 0, 0), **extra), path)


def rle(path):
    ds = pydicom.dcmread(classic(path))
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)
    return path


def enhanced(path):
    return save(valid_enhanced(np.arange(96).reshape(2, 8, 6), [(0, 0, 0), (0, 0, 2)]), path)


def packed(path):
    path = path.with_name("a.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(0).integers(-1000, 900, (8, 7, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-1, -1, 2, 1])), path)
    return path


def attempt(folder, out, weights, **options):
    """One line of what became of it; empty where a result did."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    text = ""
    try:
        denoise_scans(folder, out, weights=weights, progress=False, overwrite=True, **options)
    except Exception as error:
        text = one_line(error)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not text.startswith("unexpected "), text  # what no one had thought of
    assert "Traceback" not in text, text
    assert not list(out.glob(".unfinished/*"))
    return text


@pytest.mark.parametrize("make", [classic, rle, enhanced, packed])
def test_corrupted_files(tmp_path, add, make):
    path = make(tmp_path / "in" / "a.dcm")
    whole = path.read_bytes()
    rng = np.random.default_rng(SEED)
    attempt_whole = attempt(path.parent, tmp_path / "out", add)
    assert attempt_whole == ""
    texts = []
    for _ in range(TIMES):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        texts.append(attempt(path.parent, tmp_path / "out", add, compression="rle" if rng.random() < 0.3 else "none"))
    assert any(texts)


@pytest.mark.parametrize("make", [classic, rle, enhanced, packed])
def test_files_that_break_off(tmp_path, add, make):
    path = make(tmp_path / "in" / "a.dcm")
    whole = path.read_bytes()
    for keep in np.random.default_rng(SEED).integers(0, len(whole) - 1, TIMES):
        path.write_bytes(whole[:keep])
        text = attempt(path.parent, tmp_path / "out", add)
        assert path.name in text or "in: expected" in text  # the file, or the folder that holds nothing else
    assert not list((tmp_path / "out").glob("*_denoised*.dcm"))
