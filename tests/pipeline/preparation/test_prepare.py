import json

import nibabel as nib
import numpy as np
import pytest
from tiny_patches import drawn, pairs, turned_back

from ct_cncl.pipeline.preparation.prepare import PrepareOptions, prepare_data
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.datalist import DATALIST, read_datalist, verify_checksums
from ct_cncl.transforms.dataset.patients import hash_patient
from ct_cncl.transforms.dataset.simulated_cases import phantom_cases

AFFINE = np.diag([-0.8, -0.8, 3.0, 1.0])  # slices are shown as they are stored


def save(folder, name, seed, shift=0):
    """A scan of random whole HU, the same for the same seed but for ``shift``."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(-1024, 2000, (16, 16, 2)).astype(np.int16) + np.int16(shift)
    nib.save(nib.Nifti1Image(volume, AFFINE), folder / name)
    return volume


def stored(entry, key):
    image = nib.load(entry[key])
    return np.asarray(image.dataobj), image.affine


def test_phantoms_end_to_end(tmp_path, capsys):
    options = PrepareOptions(out=tmp_path / "data", phantoms=4, slices=1, size=64, seed=5, salt="s", test_fraction=0.25)
    prepare_data(options)
    content = read_datalist(tmp_path / "data")
    verify_checksums(content)
    assert {split: len(content[split]) for split in ("training", "validation", "test")} == {
        "training": 2,
        "validation": 1,
        "test": 1,
    }
    made = {case.source: case.make() for case in phantom_cases(4, first_seed=5, slices=1, dose_fraction=0.25, size=64)}
    for split in ("training", "validation", "test"):
        for entry in content[split]:
            pair = made.pop(entry["source"])
            np.testing.assert_array_equal(stored(entry, "image")[0], np.round(pair.image))
            np.testing.assert_array_equal(stored(entry, "label")[0], np.round(pair.label))
            np.testing.assert_allclose(stored(entry, "label")[1], pair.affine, rtol=1e-6)
            assert entry["patient"] == hash_patient(entry["source"], "s")
            if split == "training":
                assert "tissues" not in entry
            else:  # results are judged by them
                np.testing.assert_array_equal(stored(entry, "tissues")[0], pair.tissues)
                np.testing.assert_array_equal(stored(entry, "tissues")[1], stored(entry, "label")[1])
                assert stored(entry, "tissues")[0].dtype == np.uint8
                assert "tissues" in entry["checksum"]
    assert made == {}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "preparing 4 volumes"
    assert printed[1].split() == ["training", "2", "volumes,", "2", "patients,", "2", "slices"]
    assert printed[-1] == f"Data set: {tmp_path / 'data'}"


def test_realizations_of_unit_noise_for_training_at_random_doses(tmp_path):
    from ct_cncl.transforms.common.hu import to_hu

    options = {"phantoms": 2, "slices": 1, "size": 64, "realizations": 2, "validation_fraction": 0.5}
    prepare_data(PrepareOptions(out=tmp_path / "data", **options))
    content = read_datalist(tmp_path / "data")
    verify_checksums(content)
    (entry,) = content["training"]
    assert "noise" not in content["validation"][0]
    dataset = pairs(content["training"], 64, per_epoch=4, seed=0, patches={"dose_range": [0.25, 0.25]})
    inside = stored(entry, "label")[0][..., 0] > -900
    added = [(to_hu(item["image"]) - to_hu(item["label"]))[0].numpy() for item in (dataset[k] for k in range(4))]
    expected = (stored(entry, "image")[0] - stored(entry, "label")[0])[..., 0][inside].std()
    for number, noise in enumerate(added):
        turned = turned_back(noise[None], drawn(dataset, number))[0]
        assert turned[inside].std() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("options", [{"realizations": -1, "phantoms": 2}, {"realizations": 2, "low": ["x"]}])
def test_realizations_that_cannot_be_are_refused(tmp_path, options):
    options = {"sources": [] if "phantoms" in options else [tmp_path]} | options
    with pytest.raises(DataError, match="noise realizations"):
        prepare_data(PrepareOptions(out=tmp_path / "data", **options))


@pytest.mark.parametrize(
    "options", [{"photon_counts": 3}, {"photon_counts": -1}, {"photon_counts": 1, "dose_fraction": 1.0}]
)
def test_direct_realizations_that_cannot_be_are_refused(tmp_path, options):
    with pytest.raises(DataError, match="no more --photon-counts than --realizations"):
        prepare_data(PrepareOptions(out=tmp_path / "data", **{"phantoms": 2, "realizations": 2} | options))


def test_direct_realizations_are_stored_and_told(tmp_path):
    options = {"phantoms": 2, "slices": 1, "size": 64, "realizations": 2, "validation_fraction": 0.5}
    prepare_data(PrepareOptions(out=tmp_path / "formula", **options))
    prepare_data(PrepareOptions(out=tmp_path / "photon_counts", photon_counts=1, **options))
    ((one,), (other,)) = (read_datalist(tmp_path / name)["training"] for name in ("formula", "photon_counts"))
    sums = [entry["checksum"]["noise"] for entry in (one, other)]
    assert sums[0][0] == sums[1][0]
    assert sums[0][1] != sums[1][1]
    assert other["noise_model"]["counts_at_dose"] == 0.25


def test_the_same_options_give_the_same_files(tmp_path):
    texts = []
    for name in ("one", "two"):
        prepare_data(PrepareOptions(out=tmp_path / name, phantoms=2, slices=1, size=64, salt="s"))
        texts.append(json.loads((tmp_path / name / DATALIST).read_text()))
    assert texts[0] == texts[1]  # checksums among them


def test_real_pairs_end_to_end(tmp_path):
    full = {name: save(tmp_path / "full", f"{name}_full.nii", seed) for seed, name in enumerate(["P1", "P2"])}
    full["P3"] = save(tmp_path / "val", "P3_full.nii", 2)
    for seed, name in enumerate(["P1", "P2", "P3"]):
        save(tmp_path / "low", f"{name}_low.nii", seed, shift=9)
    prepare_data(
        PrepareOptions(
            out=tmp_path / "data",
            sources=[tmp_path / "full"],
            low=[tmp_path / "low"],
            validation=[tmp_path / "val"],
            dose_fraction=0.1,
        )
    )
    content = read_datalist(tmp_path / "data")
    verify_checksums(content)
    assert [entry["source"] for entry in content["training"]] == ["P1_full", "P2_full"]
    assert [entry["source"] for entry in content["validation"]] == ["P3_full"]
    for entry in content["training"] + content["validation"]:
        expected = full[entry["source"][:2]]
        np.testing.assert_array_equal(stored(entry, "label")[0], expected)
        np.testing.assert_array_equal(stored(entry, "image")[0], expected + 9)
        np.testing.assert_allclose(stored(entry, "image")[1], AFFINE, rtol=1e-6)
        assert entry["dose_fraction"] == 0.1


def test_a_patient_table_says_whose_scans_they_are(tmp_path):
    for seed in range(4):
        save(tmp_path / "scans", f"s{seed}.nii", seed)
        save(tmp_path / "low", f"s{seed}.nii", seed)
    (tmp_path / "table.csv").write_text("file,patient\ns0.nii,A\ns1.nii,A\ns2.nii,B\ns3.nii,B\n")
    options = {"sources": [tmp_path / "scans"], "low": [tmp_path / "low"], "patients": tmp_path / "table.csv"}
    prepare_data(PrepareOptions(out=tmp_path / "data", **options, validation_fraction=0.5))
    content = read_datalist(tmp_path / "data")
    groups = [{entry["source"] for entry in content[split]} for split in ("training", "validation")]
    assert sorted(map(sorted, groups)) == [["s0", "s1"], ["s2", "s3"]]
    assert content["patient_table"] is True


def test_a_patient_named_for_two_splits_is_refused_and_nothing_is_written(tmp_path):
    for folder in ("full", "val"):
        save(tmp_path / folder, f"P1_{folder}.nii", 0)
    options = PrepareOptions(
        out=tmp_path / "data", sources=[tmp_path / "full"], validation=[tmp_path / "val"], incident_photons=1e5
    )
    with pytest.raises(DataError, match=r"P1_full \(training\) and P1_val \(validation\)"):
        prepare_data(options)
    assert not (tmp_path / "data").exists()


def test_too_few_patients_for_the_fractions_are_refused(tmp_path):
    with pytest.raises(DataError, match="got 1"):
        prepare_data(PrepareOptions(out=tmp_path / "data", phantoms=1, slices=1, size=64))


@pytest.mark.parametrize("key", ["sources", "low", "validation", "test"])
def test_phantoms_and_scans_at_once_are_refused(tmp_path, key):
    """Regression: scans for low dose, validation and test were passed over silently."""
    with pytest.raises(DataError, match="got both"):
        prepare_data(PrepareOptions(out=tmp_path / "data", phantoms=2, **{key: [tmp_path]}))
    assert not (tmp_path / "data").exists()


def test_neither_phantoms_nor_scans_are_refused(tmp_path):
    with pytest.raises(DataError, match="got neither"):
        prepare_data(PrepareOptions(out=tmp_path / "data"))


@pytest.mark.parametrize("dose", [0.0, -0.25, 1.01, float("nan")])
def test_doses_out_of_range_are_refused(tmp_path, dose):
    with pytest.raises(DataError, match="dose fraction above 0 and up to 1"):
        prepare_data(PrepareOptions(out=tmp_path / "data", phantoms=2, dose_fraction=dose))
    assert not (tmp_path / "data").exists()


def test_real_pairs_of_one_tree_end_to_end(tmp_path, capsys):
    """Both doses side by side; what says no dose is named, and how the scan was acquired is kept."""
    from tiny_dicom import dicom_slice

    expected = {}
    for seed, patient in enumerate(["L067", "L096"]):
        hu = np.random.default_rng(seed).integers(-1000, 900, (2, 8, 8))
        expected[patient] = hu.transpose(2, 1, 0)
        for dose, code, shift in (("full", "FD", 0), ("quarter", "QD", 6)):
            (tmp_path / "in" / patient / f"{dose}_1mm").mkdir(parents=True)
            for k in range(2):
                ds = dicom_slice(hu[k] + 1024 + shift, 3.0 * k, 0.7)
                ds.SeriesInstanceUID, ds.PatientID = f"1.2.{seed}.{len(dose)}", f"{patient}_{code}_1_1"
                ds.BodyPartExamined = "ABDOMEN"
                ds.save_as(tmp_path / "in" / patient / f"{dose}_1mm" / f"{k}.IMA", enforce_file_format=True)
    save(tmp_path / "in", "L067_scout.nii", 3)
    options = PrepareOptions(
        out=tmp_path / "data", sources=[tmp_path / "in"], pairs=True, validation_fraction=0.5, salt="s"
    )
    prepare_data(options)
    content = read_datalist(tmp_path / "data")
    found = {entry["patient"]: entry for split in ("training", "validation") for entry in content[split]}
    assert set(found) == {hash_patient(patient, "s") for patient in expected}
    for patient, hu in expected.items():
        entry = found[hash_patient(patient, "s")]
        np.testing.assert_array_equal(stored(entry, "label")[0], hu)
        np.testing.assert_array_equal(stored(entry, "image")[0], hu + 6)
        assert entry["acquisition"] == {
            "kvp": 120.0, "exposure_mas": 100.0, "slice_thickness_mm": 5.0, "kernel": "B30f", "manufacturer": "SIEMENS",
            "body_part": "ABDOMEN",
        }  # fmt: skip
    assert capsys.readouterr().out.startswith("passed over 1 scan without a stated dose: L067_scout")


@pytest.mark.parametrize(
    "options",
    [{"pairs": True, "low": ["x"]}, {"pairs": True, "phantoms": 2, "sources": []}, {"across_frames": True}],
)
def test_options_of_pairs_that_exclude_each_other(tmp_path, options):
    with pytest.raises(DataError, match="real pairs from two trees"):
        prepare_data(PrepareOptions(out=tmp_path / "data", **({"sources": [tmp_path]} | options)))


def test_volumes_of_a_body_that_is_cut_off_are_said_once(tmp_path, capsys):
    """Soft tissue up to the edge of the field of view in one of two scans."""
    inside = np.hypot(*np.mgrid[-48:48, -48:48])[..., None]
    for name, radius in (("a_whole", 30), ("b_cut", 80)):
        hu = np.where(inside < radius, 40.0, -1000.0) + np.random.default_rng(0).normal(0, 5, (96, 96, 1))
        hu[0, 0] = -1000
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(hu.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0])), tmp_path / "in" / f"{name}.nii")
    prepare_data(PrepareOptions(out=tmp_path / "data", sources=[tmp_path / "in"], validation_fraction=0.5))
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "warning: 1 of 2 volumes show a body that the field of view cuts off, b_cut" in said
