import hashlib
import json

import pytest

from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.datalist import (
    DATALIST,
    FORMAT,
    check_patients,
    entries,
    read_datalist,
    verify_checksums,
)


def dataset(folder, *, training=("a",), validation=(), test=()):
    """A data set of two-byte volumes, one entry per patient named."""
    content = {"format": FORMAT}
    for split, patients in {"training": training, "validation": validation, "test": test}.items():
        (folder / split).mkdir(parents=True)
        content[split] = []
        for number, patient in enumerate(patients):
            entry = {"patient": patient, "source": f"{patient}-{split}.nii", "checksum": {}}
            for key in ("image", "label"):
                entry[key] = f"{split}/{number}_{key}.nii"
                data = f"{patient}{key}".encode()
                (folder / entry[key]).write_bytes(data)
                entry["checksum"][key] = hashlib.sha256(data).hexdigest()
            content[split].append(entry)
    (folder / DATALIST).write_text(json.dumps(content))
    return folder


def test_paths_become_absolute_and_the_rest_stays(tmp_path, monkeypatch):
    dataset(tmp_path / "data", validation=("b",))
    monkeypatch.chdir(tmp_path)
    content = read_datalist("data")
    assert content["training"][0]["image"] == str(tmp_path / "data/training/0_image.nii")
    assert content["validation"][0]["label"] == str(tmp_path / "data/validation/0_label.nii")
    assert content["training"][0]["source"] == "a-training.nii"
    verify_checksums(content)


def test_a_split_that_is_not_there_is_empty(tmp_path):
    (tmp_path / DATALIST).write_text(json.dumps({"format": FORMAT}))
    assert read_datalist(tmp_path) == {"format": FORMAT, "training": [], "validation": [], "test": []}


def test_a_folder_without_a_datalist_is_refused_and_the_command_is_named(tmp_path):
    with pytest.raises(DataError, match="ct-cncl prepare") as caught:
        read_datalist(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{not json", "", "\xff", "[]", "null", f'{{"format": {FORMAT}, "training": [{{"image": "a.nii"}}]}}']
)
def test_what_is_no_datalist_is_refused(tmp_path, text):
    """Regression: JSON that is no object, or entries that lack a key, ended in AttributeError and KeyError."""
    (tmp_path / DATALIST).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=DATALIST) as caught:
        read_datalist(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"format": 99}, {}])
def test_another_format_is_refused(tmp_path, content):
    (tmp_path / DATALIST).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"of format {FORMAT}, but got {content.get('format')}"):
        read_datalist(tmp_path)


def test_a_patient_in_two_splits_is_refused_on_reading(tmp_path):
    dataset(tmp_path / "data", training=("a", "b"), test=("b",))
    with pytest.raises(
        DataError, match=r"b-training.nii \(training\) and b-test.nii \(test\) belong to the same patient"
    ):
        read_datalist(tmp_path / "data")


def test_a_patient_with_several_scans_in_one_split_is_fine():
    scans = [{"patient": "a", "source": "1"}, {"patient": "a", "source": "2"}]
    check_patients({"training": scans, "validation": [{"patient": "b", "source": "3"}]})


def test_checksum_is_sha256_also_beyond_one_chunk(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert file_checksum(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_changed_file_is_named(tmp_path):
    content = read_datalist(dataset(tmp_path / "data", training=("a", "b"), validation=("c",)))
    (tmp_path / "data/training/1_label.nii").write_bytes(b"blabeL")
    with pytest.raises(DataError, match="1_label.nii to have the SHA-256"):
        verify_checksums(content)
    verify_checksums(content, ("validation",))


@pytest.mark.parametrize("checksums", [["x"], []])
def test_unit_noise_is_found_and_verified(tmp_path, checksums):
    path = dataset(tmp_path / "data") / DATALIST
    content = json.loads(path.read_text())
    content["training"][0]["noise"] = ["training/0_noise1.nii"]
    content["training"][0]["checksum"]["noise"] = checksums
    path.write_text(json.dumps(content))
    found = read_datalist(tmp_path / "data")
    assert found["training"][0]["noise"] == [str(tmp_path / "data/training/0_noise1.nii")]
    with pytest.raises(DataError, match="0_noise1.nii.*missing"):
        verify_checksums(found)
    (tmp_path / "data/training/0_noise1.nii").write_bytes(b"noise")
    with pytest.raises(DataError, match="0_noise1.nii to have the SHA-256"):
        verify_checksums(found)
    found["training"][0]["checksum"]["noise"] = [hashlib.sha256(b"noise").hexdigest()]
    verify_checksums(found)


def test_a_missing_file_is_named(tmp_path):
    content = read_datalist(dataset(tmp_path / "data"))
    (tmp_path / "data/training/0_image.nii").unlink()
    with pytest.raises(DataError, match="0_image.nii.*missing"):
        verify_checksums(content)


def test_entries_of_a_split(tmp_path):
    content = read_datalist(dataset(tmp_path / "data", training=("a", "b")))
    assert [entry["patient"] for entry in entries(content, "training")] == ["a", "b"]
    with pytest.raises(DataError, match="--validation-fraction"):
        entries(content, "validation")
    with pytest.raises(DataError, match="training, validation, test, but got 'train'"):
        entries(content, "train")
    with pytest.raises(DataError, match="Prepare the data set again"):
        entries({"training": []}, "training")
