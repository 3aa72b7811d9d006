"""What a user is warned of, and what is no reason to: kernels, gaps, clipped values, frames of reference; never with values of tags."""

import json
import logging
import struct
import warnings

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.weights.domain import outside, scan_domain
from ct_cncl.transforms.series import Acquisition, ScanError

TRAINED_ON = {"slice_mm": [1.0, 5.0], "noise_per_mm": [0.3, 0.43]}


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    """By change in HU, weights that know what they were trained on."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "trained_on.json").write_text(json.dumps(TRAINED_ON))
    return {hu: scripted(Add(hu), folder / f"add{hu}.ts") for hu in (0.0, -3.0)}


def warned(out):
    return json.loads((out / "manifest.jsonl").read_text().splitlines()[0])["warnings"]


def texture(*, smooth=0, size=128):
    """Soft tissue with noise; each smoothing is a mean of 2 x 2."""
    noise = np.random.default_rng(0).normal(0, 40, (3, size, size))
    for _ in range(smooth):
        noise = (noise + np.roll(noise, 1, 1)) / 2
        noise = (noise + np.roll(noise, 1, 2)) / 2
    return list(40 + noise * 15 / noise.std())


@pytest.mark.parametrize(("smooth", "unlike"), [(0, True), (3, False), (20, True)])
@pytest.mark.parametrize("kernel", ["", "B80f"])
def test_the_kernel_is_judged_by_the_noise_and_called_by_its_tag(smooth, unlike, kernel):
    """A bare ramp, a standard kernel, a very smooth one; NIfTI names none, and no name decides."""
    found = scan_domain(texture(smooth=smooth), (0.7, 0.7, 2.0), Acquisition(kernel=kernel) if kernel else None)
    texts = outside(found, TRAINED_ON)
    assert bool(texts) is unlike
    if unlike:
        name = f" (kernel {kernel})" if kernel else ""
        value = found["noise_per_mm"][0]
        assert texts == [
            f"a noise spectrum{name} of mean frequency {value:.3g} /mm lies outside the 0.3 to 0.43 /mm of the training data"
        ]


@pytest.mark.parametrize("layout", ["gap", "phases"])
def test_the_distance_of_slices_is_that_of_most(tmp_path, add, layout):
    """Every 2 mm with ten missing is a mean step of 7 mm; ten images at each place one of 0.15 mm: neither is the scan's."""
    places = [0, 1, 2, 3, 14] if layout == "gap" else [k for _ in range(10) for k in range(4)]
    for number, place in enumerate(places):
        write_series(tmp_path / "one", 1, slices=1, ImagePositionPatient=[0, 0, 2.0 * place], InstanceNumber=number + 1)
        ds = pydicom.dcmread(tmp_path / "one" / "000.dcm")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        ds.PixelData = np.random.default_rng(number).integers(-900, 900, (32, 32)).astype("<i2").tobytes()
        (tmp_path / "in").mkdir(exist_ok=True)
        ds.save_as(tmp_path / "in" / f"{number}.dcm")
    (result,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add[0.0], progress=False)
    text = " ".join(warned(tmp_path / "out"))
    assert "missing" in text or "position" in text
    assert "slices every" not in text.split("training")[0].split(";")[-1]
    assert "of the training data" not in text
    assert "of the training data" not in pydicom.dcmread(next(result.iterdir())).DerivationDescription


def test_values_that_stood_at_the_end_already_are_no_news(tmp_path, add, capsys):
    """A chest clipped at -1024 by its scanner: the network wants less there, and nothing changes."""
    write_series(tmp_path / "in", 1)
    for path in (tmp_path / "in").iterdir():
        ds = pydicom.dcmread(path)
        words = np.full((32, 32), 1000, "<u2")
        words[:, :20], words[0, 31] = 0, 2
        ds.PixelRepresentation, ds.RescaleIntercept, ds.PixelData = 0, "-1024", words.tobytes()
        ds.save_as(path)
    (result,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add[-3.0], progress=False)
    said = "3 of 3072 voxels of denoised (0.098 %) clipped to -1024 HU, the lowest that the file can hold, by up to 1 HU: air, no tissue is changed"
    assert said in capsys.readouterr().err  # of 2 - 3, one a slice
    assert json.loads(next((tmp_path / "out").glob("*.json")).read_text())["clipped_voxels"] == {"denoised": 3}
    pixels = pydicom.dcmread(next(result.iterdir())).pixel_array
    assert (pixels[:, :20] == 0).all()
    assert pixels[5, 25] == 997


def test_several_frames_of_reference_are_named(tmp_path, add):
    write_series(tmp_path / "in", 1)
    for number, path in enumerate(sorted((tmp_path / "in").iterdir())):
        ds = pydicom.dcmread(path)
        ds.FrameOfReferenceUID = f"1.2.3.77.{number}"
        ds.save_as(path)
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add[0.0], progress=False)
    (text,) = warned(tmp_path / "out")
    assert text.startswith("expected one frame of reference but got 3")
    assert "1.2.3.77" not in text
    with pytest.raises(ScanError, match="one frame of reference but got 3"):
        denoise_scans(tmp_path / "in", tmp_path / "strict", weights=add[0.0], strict=True, progress=False)


def replaced(path, tag, value):
    """Write bytes into a short element, whatever its rules say; a UI, DS or IS."""
    content = path.read_bytes()
    at = content.index(tag, 300)
    length = struct.unpack("<H", content[at + 6 : at + 8])[0]
    value += b" " * (len(value) % 2)
    path.write_bytes(content[: at + 6] + struct.pack("<H", len(value)) + value + content[at + 8 + length :])


UIDS = {"study": b"\x20\0\x0d\0UI", "frame": b"\x08\0\x18\0UI"}
NUMBERS = {"spacing": b"\x28\0\x30\0DS", "slope": b"\x28\0\x53\x10DS", "rows": b"\x20\0\x13\0IS"}


@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize("name", [*UIDS, *NUMBERS])
def test_libraries_never_print_values(tmp_path, add, name, deidentify, caplog, capfd):
    """pydicom's warnings and log quote what it finds odd; of --deidentify, nor do errors."""
    if deidentify:
        pytest.importorskip("dicomanonymizer")
    write_series(tmp_path / "in", 1, InstanceNumber=1)
    for number, path in enumerate((tmp_path / "in").iterdir()):
        value = f"1.2.03.PATIENT77.{number}" if name == "frame" else "1.2.03.PATIENT77"
        replaced(path, (UIDS | NUMBERS)[name], value.encode())
    error = ""
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            denoise_scans(tmp_path / "in", tmp_path / "out", weights=add[0.0], deidentify=deidentify)
        except ScanError as failed:
            error = str(failed)
    captured = capfd.readouterr()
    texts = [*map(str, (warning.message for warning in said)), caplog.text, captured.out, captured.err]
    assert not any("PATIENT77" in text for text in texts)
    if deidentify:
        assert "PATIENT77" not in error
    if deidentify and name in UIDS:
        assert not any(b"PATIENT77" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
