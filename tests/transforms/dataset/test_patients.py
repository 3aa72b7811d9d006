import hashlib
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.patients import PatientFinder, hash_patient, split_patients


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "patients.csv"
    path.write_bytes(text.encode(encoding))
    return path


# Whose scan a file is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patient"), [("L067_FD.nii.gz", "L067"), ("L067.nii.gz", "L067"), ("C-1_a_b.nii", "C-1"), ("scan", "scan")]
)
def test_the_default_rule_takes_the_name_up_to_the_first_underscore(name, patient):
    assert PatientFinder()(Path("/anywhere/x_y") / name) == patient


def test_a_rule_gives_its_first_group_or_the_whole_match():
    assert PatientFinder(name_rule=r"case-(\d+)-(\d+)")(Path("x-case-12-7.nii")) == "12"
    assert PatientFinder(name_rule=r"\d+")(Path("case12-7.nii")) == "12"


def test_the_header_wins_over_the_name_and_the_table_over_both(tmp_path):
    assert PatientFinder()(Path("L067_FD"), "Header") == "Header"
    finder = PatientFinder(table(tmp_path, "file,patient\nL067_FD,Table\n"))
    assert finder(Path("L067_FD"), "Header") == "Table"


def test_table_rows_are_found_by_name_and_by_path_and_the_path_wins(tmp_path):
    text = "note,patient,file\n1, P1 , scan.nii \n2,P2,/data/b/scan.nii\n"
    finder = PatientFinder(table(tmp_path, text, "utf-8-sig"))
    assert finder(Path("/data/a/scan.nii")) == "P1"
    assert finder(Path("/data/b/scan.nii")) == "P2"


def test_a_row_that_is_missing_is_refused_though_header_and_name_would_do(tmp_path):
    finder = PatientFinder(table(tmp_path, "file,patient\na.nii,P1\n"))
    with pytest.raises(DataError, match="row for b_1.nii"):
        finder(Path("b_1.nii"), "Header")


def test_a_name_that_the_rule_does_not_match_is_refused():
    with pytest.raises(DataError, match="scan.nii to match the patient rule"):
        PatientFinder(name_rule=r"L(\d+)")(Path("scan.nii"))
    with pytest.raises(DataError, match="--patient-from-name"):
        PatientFinder(name_rule=r"L(\d*)")(Path("L.nii"))


def test_a_rule_that_is_no_regular_expression_is_refused():
    with pytest.raises(DataError, match=r"regular expression.*'\(L'"):
        PatientFinder(name_rule="(L")


@pytest.mark.parametrize("text", ["", "file,patient\n", "name,patient\na.nii,P\n", "a.nii,P1\nb.nii,P2\n"])
def test_a_table_without_rows_or_columns_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="columns file and patient"):
        PatientFinder(table(tmp_path, text))


@pytest.mark.parametrize("row", ["b.nii", "b.nii,", "b.nii,  ", ",P2"])
def test_a_row_without_file_or_patient_is_refused(tmp_path, row):
    """Regression: a short row ended in AttributeError, and empty cells made one patient named ''."""
    with pytest.raises(DataError, match="line 3"):
        PatientFinder(table(tmp_path, f"file,patient\na.nii,P1\n{row}\n"))


def test_a_file_with_two_patients_is_refused(tmp_path):
    """Regression: the last row won silently."""
    assert PatientFinder(table(tmp_path, "file,patient\na.nii,P1\na.nii,P1\n"))(Path("a.nii")) == "P1"
    with pytest.raises(DataError, match=r"a\.nii.*line 3") as error:
        PatientFinder(table(tmp_path, "file,patient\na.nii,Ann Alpha\na.nii,Bob Beta\n"))
    assert "Ann" not in str(error.value), "an error message never names a patient"
    assert "Bob" not in str(error.value), "an error message never names a patient"


def test_a_table_that_cannot_be_read_is_refused(tmp_path):
    """Regression: a table that is not UTF-8 ended in UnicodeDecodeError."""
    with pytest.raises(DataError, match="missing.csv"):
        PatientFinder(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="patients.csv"):
        PatientFinder(table(tmp_path, "file,patient\na.nii,Mäx\n", "latin-1"))


def test_the_hash_is_salted_sha256():
    assert hash_patient("P1", "salt") == hashlib.sha256(b"salt\0P1").hexdigest()[:16]
    assert hash_patient("P1", "salt") != hash_patient("P1", "pepper")
    assert hash_patient("P1", "salt") != hash_patient("P2", "salt")


# Splits --------------------------------------------------------------------------------------------------------------


def test_fractions_are_of_patients_not_of_scans():
    names = [f"P{number}" for number in range(10)] + ["P0"] * 90
    split = split_patients(names, validation_fraction=0.2, test_fraction=0.3, seed=0)
    assert Counter(split.values()) == {"validation": 2, "test": 3, "training": 5}
    assert set(split) == set(names)


def test_the_split_depends_on_the_seed_and_the_names_only():
    names = [f"P{number}" for number in range(20)]
    options = {"validation_fraction": 0.3, "test_fraction": 0.2}
    first = split_patients(names, **options, seed=3)
    assert first == split_patients(reversed(names), **options, seed=3)
    assert first != split_patients(names, **options, seed=4)


def test_a_fraction_above_zero_gives_at_least_one_patient():
    names = ["a", "b", "c"]
    split = split_patients(names, validation_fraction=0.01, test_fraction=0.01, seed=0)
    assert Counter(split.values()) == {"validation": 1, "test": 1, "training": 1}
    assert set(split_patients(names, validation_fraction=0, test_fraction=0, seed=0).values()) == {"training"}


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="more patients than the 2 asked for"):
        split_patients(["a", "b"], validation_fraction=0.2, test_fraction=0.2, seed=0)
    with pytest.raises(DataError, match="got 1"):
        split_patients(["a", "a", "a"], validation_fraction=0.2, test_fraction=0, seed=0)


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0), (0, -0.1), (0.5, 0.5), (1.0, 0)])
def test_fractions_out_of_range_are_refused(validation, test):
    with pytest.raises(DataError, match="sum below 1"):
        split_patients(["a", "b", "c"], validation_fraction=validation, test_fraction=test, seed=0)


# Names in two spellings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["NFC", "NFD"])
@pytest.mark.parametrize("rows", ["NFC", "NFD"])
def test_letters_with_accents_are_the_same_in_both_spellings(tmp_path, files, rows):
    """Regression: macOS spells file names in one way, spreadsheets in the other, and the row was not found."""
    name, patient = (unicodedata.normalize(files, text) for text in ("Müller_1.nii.gz", "Müller"))
    finder = PatientFinder(table(tmp_path, unicodedata.normalize(rows, "file,patient\nMüller_1.nii.gz,Jörg\n")))
    assert finder(Path("/a") / name) == "Jörg"
    assert PatientFinder()(Path(name)) == PatientFinder()(Path("x"), patient) == "Müller"
    assert PatientFinder(name_rule=unicodedata.normalize(rows, "(Mü)"))(Path(name)) == "Mü"
