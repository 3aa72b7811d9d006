"""DICOM in, derived series out: valid, marked as simulated, and denoised as any scan is."""

import shutil
import subprocess
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_archive import manifest
from enhanced_files import valid_enhanced
from low_dose import PIXEL, RADIUS, cylinder, dicom, record, run, save, values
from series_files import save as save_dicom
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.series import ScanError, read_scan
from ct_cncl.transforms.series.origin import origin_of


def files(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def uids(folder):
    return {ds.SOPInstanceUID for ds in files(folder)} | {ds.SeriesInstanceUID for ds in files(folder)}


def test_a_series_becomes_a_derived_one_with_the_noise_of_the_physics(tmp_path):
    volume = dicom(tmp_path / "in", cylinder(slices=3))
    (path,) = run(tmp_path / "in", tmp_path / "out")
    assert path.name == "in_series003_dose0.25_r1"
    found = record(path)
    settings = DoseSettings(dose_fraction=0.25, incident_photons=found["settings"]["incident_photons"])
    expected = insert_noise(volume, (PIXEL, PIXEL), settings, found["noise_seed"])
    made = read_scan(path)
    np.testing.assert_array_equal(made.hu, np.rint(np.maximum(expected, -1024)))
    np.testing.assert_array_equal(made.affine, read_scan(tmp_path / "in").affine)
    for ds in files(path):
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert origin_of(ds).kind == "simulated"
        assert ds.DerivationCodeSequence[0].CodeValue == "LOWDOSE"
        assert "simulated low dose; 0.25 of the dose, realization 1" in ds.DerivationDescription
        assert ds.ContributingEquipmentSequence[-1].ManufacturerModelName == "ct-cncl"
        assert "simulated low dose 0.25 r1" in ds.SeriesDescription
        assert ds.StudyInstanceUID == files(tmp_path / "in")[0].StudyInstanceUID
    assert not uids(path) & uids(tmp_path / "in")


def test_uids_follow_from_all_that_can_change_an_object_and_from_nothing_else(tmp_path):
    dicom(tmp_path / "in", cylinder())
    shutil.copytree(tmp_path / "in", tmp_path / "elsewhere" / "other")
    (first,) = run(tmp_path / "in", tmp_path / "one")
    (again,) = run(tmp_path / "elsewhere", tmp_path / "two")
    assert uids(first) == uids(again)
    np.testing.assert_array_equal(read_scan(first).hu, read_scan(again).hu)
    changes = ({"dose_fraction": 0.5}, {"seed": 1}, {"incident_photons": 2e4}, {"geometry": "mayo"})
    others = [run(tmp_path / "in", tmp_path / f"c{k}", **change)[0] for k, change in enumerate(changes)]
    others.append(run(tmp_path / "in", tmp_path / "r", realizations=2)[1])
    everything = [uids(path) for path in (first, *others)]
    assert len(set.union(*everything)) == sum(map(len, everything))
    assert len({files(path)[0].SeriesNumber for path in (first, *others)}) == len(everything)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian's dicom3tools)")
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_the_validator_finds_no_new_error(tmp_path, kind):
    if kind == "classic":
        dicom(tmp_path / "in", cylinder())
    else:
        stored = np.random.default_rng(1).integers(0, 2000, (2, 64, 48))
        save_dicom(valid_enhanced(stored, [(0, 0, 2.5 * k) for k in range(2)]), tmp_path / "in" / "a.dcm")

    def errors(path):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}

    before = set.union(*map(errors, (tmp_path / "in").iterdir()))
    (path,) = run(tmp_path / "in", tmp_path / "out")
    assert set.union(*map(errors, path.iterdir())) <= before
    assert kind == "classic" or before == set()


def test_denoise_takes_a_simulated_scan_as_any_scan(tmp_path):
    dicom(tmp_path / "in", cylinder())
    (low,) = run(tmp_path / "in", tmp_path / "low")
    (result,) = denoise_scans(
        tmp_path / "low", tmp_path / "out", weights=scripted(Add(25.0), tmp_path / "add.ts"), progress=False
    )
    np.testing.assert_array_equal(read_scan(result).hu, read_scan(low).hu + 25)
    assert {origin_of(ds).kind for ds in files(result)} == {"result"}
    with pytest.raises(ScanError, match="simulate these anyway with --derived"):
        run(tmp_path / "out", tmp_path / "again")


def test_gaps_are_reported_and_every_slice_is_simulated(tmp_path, capsys):
    dicom(tmp_path / "in", cylinder(slices=5))
    (tmp_path / "in" / "002.dcm").unlink()
    (path,) = run(tmp_path / "in", tmp_path / "out")
    assert len(files(path)) == 4
    (warning,) = record(path)["warnings"]
    assert "1 missing" in warning
    assert "slices are simulated one by one anyway" in warning
    assert "1 missing" in capsys.readouterr().err
    for options, words in (
        ({"strict": True}, "--strict"),
        ({"nifti": True}, "expected evenly spaced slices for NIfTI"),
    ):
        with pytest.raises(ScanError, match=words):
            run(tmp_path / "in", tmp_path / "other", **options)


def test_nifti_where_it_is_asked_for(tmp_path):
    dicom(tmp_path / "in", cylinder())
    (series,) = run(tmp_path / "in", tmp_path / "one")
    (path,) = run(tmp_path / "in", tmp_path / "two", nifti=True)
    assert path.name == "in_series003_dose0.25_r1.nii.gz"
    made, like = read_scan(path), read_scan(series)
    np.testing.assert_array_equal(made.hu, like.hu)
    np.testing.assert_allclose(made.affine, like.affine, atol=1e-5)
    assert values(path).dtype == np.int16
    assert run(tmp_path / "in", tmp_path / "low.nii.gz", nifti=True) == [tmp_path / "low.nii.gz"]


def test_an_archive_with_a_zip_a_choice_and_a_bad_file(tmp_path, count):
    for number in (1, 2):
        dicom(tmp_path / "in" / f"s{number}", cylinder(), number)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed:
        for path in sorted((tmp_path / "in").rglob("*.dcm")):
            packed.write(path, path.relative_to(tmp_path / "in"))
    assert len(run(tmp_path / "in.zip", tmp_path / "zip", realizations=2, incident_photons=None)) == 4
    assert count == {"low_dose": 4, "calibrate": 2}
    (only,) = run(tmp_path / "in", tmp_path / "one", series=("2",))
    assert only.name == "s2_series002_dose0.25_r1"
    (tmp_path / "in" / "s1" / "000.dcm").write_bytes((tmp_path / "in" / "s1" / "000.dcm").read_bytes()[:2000])
    with pytest.raises(ScanError, match="1 failed"):
        run(tmp_path / "in", tmp_path / "all")
    assert sorted(line["state"] for line in manifest(tmp_path / "all")) == ["done", "failed"]


def test_deidentified_results_name_nobody(tmp_path):
    pytest.importorskip("dicomanonymizer", reason="needs dicom-anonymizer")
    dicom(tmp_path / "Zaphod", cylinder())
    (path,) = run(tmp_path / "Zaphod", tmp_path / "out", deidentify=True)
    for each in (tmp_path / "out").rglob("*"):
        assert "Zaphod" not in str(each.relative_to(tmp_path / "out"))
        if each.is_file():
            assert not any(word in each.read_bytes() for word in (b"Zaphod", b"Patient1", b"1.2.826.3."))
    assert origin_of(files(path)[0]).kind == "simulated"


def test_the_streamed_calibration_is_that_of_the_volume(tmp_path):
    from ct_cncl.transforms.physics.simulation import calibrate

    clean = np.where(RADIUS < 30, 0.0, -1000.0)[..., None].repeat(9, axis=2)
    clean[..., :2] = -1000.0  # no tissue: not measured
    noisy = insert_noise(clean, (PIXEL, PIXEL), DoseSettings(1.0, incident_photons=2e5), 0, noise_free=True)
    volume = np.rint(noisy).astype(np.int16)
    (path,) = run(save(tmp_path / "a.nii.gz", volume), tmp_path / "out", incident_photons=None)
    whole = calibrate(volume, (PIXEL, PIXEL), DoseSettings(dose_fraction=0.25), 0, usual_electronics=True)
    found = record(path)["calibration"]
    assert found["incident_photons"] == whole.incident_photons
    assert tuple(found["slices"]) == whole.slices
    assert found["kernel_gain"] == list(whole.kernel_gain)
