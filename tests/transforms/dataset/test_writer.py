import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.transforms.common.errors import DataError, OutputError
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.dataset import writer as prepare
from ct_cncl.transforms.dataset.datalist import DATALIST, read_datalist, verify_checksums
from ct_cncl.transforms.dataset.patients import hash_patient
from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
from ct_cncl.transforms.dataset.writer import split_cases, write_dataset

AFFINE = np.array([[-0.75, 0, 0, 100.5], [0, -0.75, 0, 90.25], [0, 0, 2.5, -30], [0, 0, 0, 1]])
HU = np.random.default_rng(0).uniform(-1024, 3071, (6, 5, 3)).astype(np.float32)


def case(patient="P1", source="scan", *, image=HU - 3.25, label=HU, provenance=None, make=None, noise=()):
    model = {"noise_free": False, "floor_hu": -1024.0} if noise else {}
    pair = Pair(image, label, AFFINE, provenance or {"truth": "scan"}, [lambda n=n: n for n in noise], model)
    return Case(patient, source, 0.25, make or (lambda: pair))


def failing(error):
    def make():
        raise error

    return case("P9", "broken", make=make)


# Splits --------------------------------------------------------------------------------------------------------------


def test_all_scans_of_a_patient_go_to_one_split():
    cases = [case(f"P{number % 10}", f"s{number}") for number in range(30)]
    splits = split_cases(cases, validation_fraction=0.2, test_fraction=0.1, seed=1)
    assert {split: len(chosen) for split, chosen in splits.items()} == {"training": 21, "validation": 6, "test": 3}
    people = [{one.patient for one in chosen} for chosen in splits.values()]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_named_scans_replace_the_fraction():
    cases, named = [case(f"P{number}") for number in range(10)], [case("V")]
    splits = split_cases(cases, validation=named, validation_fraction=0.5, test_fraction=0.2, seed=1)
    assert splits["validation"] == named
    assert (len(splits["training"]), len(splits["test"])) == (8, 2)


def test_a_patient_named_for_two_splits_is_refused():
    with pytest.raises(DataError, match=r"a \(training\) and b \(test\) belong to the same patient"):
        split_cases([case("P1", "a")], test=[case("P1", "b")])
    with pytest.raises(DataError, match=r"c \(validation\) and b \(test\)"):
        split_cases([case("P1", "a")], validation=[case("P2", "c")], test=[case("P2", "b")])


# Writing -------------------------------------------------------------------------------------------------------------


def test_values_are_rounded_to_int16_and_the_affine_is_kept(tmp_path):
    write_dataset(tmp_path / "data", {"training": [case()]})
    for key, hu in (("image", HU - 3.25), ("label", HU)):
        stored = nib.load(tmp_path / f"data/training/0000_{key}.nii")
        assert stored.get_data_dtype() == np.int16
        assert (stored.dataobj.slope, stored.dataobj.inter) == (1, 0)
        np.testing.assert_array_equal(np.asarray(stored.dataobj), np.round(hu.astype(float)))
        np.testing.assert_array_equal(stored.affine, AFFINE)
        assert stored.header.get_xyzt_units()[0] == "mm"


def test_rounded_never_truncated_up_to_the_limits_of_int16(tmp_path):
    hu = np.array([-32768, -3024, -1000.6, -0.6, 0.4, 0.6, 20000, 32767], np.float32).reshape(2, 2, 2)
    write_dataset(tmp_path / "data", {"training": [case(image=hu, label=hu)]})
    stored = np.asarray(nib.load(tmp_path / "data/training/0000_label.nii").dataobj)
    assert stored.flatten().tolist() == [-32768, -3024, -1001, -1, 0, 1, 20000, 32767]


def test_the_datalist_describes_every_pair_and_verifies(tmp_path):
    splits = {"training": [case("P1", "a"), case("P1", "b")], "validation": [case("P2", "c")], "test": []}
    progress = []
    notes = {"seed": np.int64(3)}
    write_dataset(tmp_path / "data", splits, salt="s", notes=notes, progress=lambda *step: progress.append(step))
    content = read_datalist(tmp_path / "data")
    verify_checksums(content)
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert content["seed"] == 3
    assert [one["source"] for one in content["training"]] == ["a", "b"]
    assert [one["patient"] for one in content["training"]] == [hash_patient("P1", "s")] * 2
    one = content["validation"][0]
    assert one["patient"] == hash_patient("P2", "s")
    assert (one["dose_fraction"], one["shape"], one["spacing_mm"]) == (0.25, [6, 5, 3], [0.75, 0.75, 2.5])
    assert "P2" not in (tmp_path / "data" / DATALIST).read_text()


def test_a_random_salt_differs_from_time_to_time_and_is_kept_nowhere(tmp_path, monkeypatch):
    hashes = []
    for name in ("one", "two"):
        monkeypatch.setattr(prepare.secrets, "token_hex", lambda _, name=name: f"salt-{name}")
        hashes.append(write_dataset(tmp_path / name, {"training": [case()]})["training"][0]["patient"])
        assert f"salt-{name}" not in (tmp_path / name / DATALIST).read_text()
    assert hashes[0] != hashes[1]


def test_json_is_strict(tmp_path):
    provenance = {
        "nan": float("nan"),
        "list": [np.float32("inf"), np.int16(4)],
        "path": Path("x"),
        "yes": np.bool_(True),
    }
    write_dataset(tmp_path / "data", {"training": [case(provenance=provenance)]})

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "data" / DATALIST).read_text(), parse_constant=refuse)
    assert content["training"][0]["provenance"] == {"nan": None, "list": [None, 4], "path": "x", "yes": True}


def test_plain_unpacks_arrays_and_tuples():
    assert plain({1: np.array([[1.5, np.nan]]), "t": (np.float64(2), None)}) == {"1": [[1.5, None]], "t": [2.0, None]}


# Noise realizations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.3, 40.0, 3000.0])
def test_unit_noise_is_stored_with_a_scale_that_loses_nothing_to_speak_of(tmp_path, level):
    noise = [np.random.default_rng(k).normal(0, level, HU.shape).astype(np.float32) for k in range(2)]
    write_dataset(tmp_path / "data", {"training": [case(noise=noise)]})
    entry = read_datalist(tmp_path / "data")["training"][0]
    assert entry["noise_model"] == {"noise_free": False, "floor_hu": -1024.0}
    for path, expected in zip(entry["noise"], noise, strict=True):
        stored = nib.load(path)
        assert stored.get_data_dtype() == np.int16
        assert np.log2(stored.dataobj.slope).is_integer()
        np.testing.assert_array_equal(stored.affine, AFFINE)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(stored.dataobj), expected, atol=largest / 32767)
        assert np.abs(stored.dataobj.get_unscaled()).max() > 16000


def test_noise_that_is_0_everywhere_can_be_stored(tmp_path):
    write_dataset(tmp_path / "data", {"training": [case(noise=[np.zeros_like(HU)])]})
    assert not np.asarray(nib.load(tmp_path / "data/training/0000_noise1.nii").dataobj).any()


def test_unit_noise_has_checksums_and_is_for_training_only(tmp_path):
    noise = [HU, -HU]
    splits = {"training": [case("P1", noise=noise)], "validation": [case("P2", noise=noise)]}
    write_dataset(tmp_path / "data", splits)
    content = read_datalist(tmp_path / "data")
    assert [len(content[split][0]["checksum"].get("noise", [])) for split in ("training", "validation")] == [2, 0]
    assert "noise" not in content["validation"][0]
    assert sorted(path.name for path in (tmp_path / "data/training").iterdir()) == [
        "0000_image.nii",
        "0000_label.nii",
        "0000_noise1.nii",
        "0000_noise2.nii",
    ]
    verify_checksums(content)
    path = tmp_path / "data/training/0000_noise2.nii"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="0000_noise2.nii to have the SHA-256"):
        verify_checksums(content)


# What is refused, and what is left then ------------------------------------------------------------------------------


def test_an_error_in_a_later_case_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="mine"):
        write_dataset(tmp_path / "data", {"training": [case(), failing(RuntimeError("mine"))]})
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_data_set_that_was_to_be_replaced(tmp_path):
    write_dataset(tmp_path / "data", {"training": [case()]})
    before = (tmp_path / "data" / DATALIST).read_text()
    with pytest.raises(RuntimeError, match="mine"):
        write_dataset(tmp_path / "data", {"training": [failing(RuntimeError("mine"))]}, overwrite=True)
    assert (tmp_path / "data" / DATALIST).read_text() == before
    verify_checksums(read_datalist(tmp_path / "data"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save, calls = nib.save, []

    def full_at_the_third(image, path):
        calls.append(path)
        save(image, path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare.nib, "save", full_at_the_third)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write_dataset(tmp_path / "data", {"training": [case("P1"), case("P2")]})
    assert str(tmp_path / "data") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is not a data set"):
            write_dataset(tmp_path / "mine", {"training": [case()]}, overwrite=overwrite)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is not a data set"):
        write_dataset(tmp_path / "file", {"training": [case()]}, overwrite=True)


def test_a_data_set_is_replaced_only_on_demand(tmp_path):
    write_dataset(tmp_path / "data", {"training": [case("P1", "a"), case("P2", "b")]})
    with pytest.raises(DataError, match="--overwrite"):
        write_dataset(tmp_path / "data", {"training": [case("P3", "c")]})
    assert len(read_datalist(tmp_path / "data")["training"]) == 2
    write_dataset(tmp_path / "data", {"training": [case("P3", "c", label=HU + 1)]}, overwrite=True)
    content = read_datalist(tmp_path / "data")
    verify_checksums(content)
    assert [one["source"] for one in content["training"]] == ["c"]
    assert len(list((tmp_path / "data").rglob("*.nii"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "data").mkdir()
    write_dataset(tmp_path / "data", {"training": [case()]})
    assert len(read_datalist(tmp_path / "data")["training"]) == 1


def test_no_case_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one scan"):
        write_dataset(tmp_path / "data", {"training": []})
    assert list(tmp_path.iterdir()) == []


def test_a_patient_in_two_splits_is_never_written(tmp_path):
    with pytest.raises(DataError, match=r"a \(training\) and b \(validation\)"):
        write_dataset(tmp_path / "data", {"training": [case("P1", "a")], "validation": [case("P1", "b")]})
    assert list(tmp_path.iterdir()) == []


def changed(value):
    hu = HU.copy()
    hu[1, 2, 0] = value
    return hu


@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize(
    ("hu", "message"),
    [
        (changed(np.nan), "finite HU in scan"),
        (changed(np.inf), "finite HU in scan"),
        (changed(32768), "HU of scan between -32768 and 32767.*to 32768"),
        (changed(-32769), "HU of scan between -32768 and 32767, but got -32769"),
        (HU[:5], "low and full dose of scan to have the same shape"),
    ],
)
def test_pairs_that_cannot_be_stored_are_refused(tmp_path, key, hu, message):
    with pytest.raises(DataError, match=message):
        write_dataset(tmp_path / "data", {"training": [case(**{key: hu})]})
    assert list(tmp_path.iterdir()) == []


def test_the_old_data_set_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    write_dataset(tmp_path / "data", {"training": [case("P1", "old")]})
    replace = Path.replace

    def refuse(self, target):
        if self.name.endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_dataset(tmp_path / "data", {"training": [case("P2", "new")]}, overwrite=True)
    assert read_datalist(tmp_path / "data")["training"][0]["source"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_scan_that_cannot_be_read_is_not_called_an_output_error(tmp_path):
    with pytest.raises(DataError, match="Expected to read broken"):
        write_dataset(tmp_path / "data", {"training": [failing(OSError(errno.EIO, "Input/output error"))]})
