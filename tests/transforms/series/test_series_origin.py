"""What of a study is a scan, what is a result of ours, and what others derived: by marks, each of which is enough."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from derive_files import DONE, datasets, derive
from enhanced_files import item, valid_enhanced
from pydicom.dataset import Dataset
from series_files import POSITIONS, ct_series, ct_slice, nifti, save

from ct_cncl.transforms.series.derivation import KINDS
from ct_cncl.transforms.series.find import find_scans, search
from ct_cncl.transforms.series.origin import SIMULATED_CODE, Origin, origin_of, origin_of_file

REAL = [  # of scanners and their consoles
    ["ORIGINAL", "PRIMARY", "AXIAL"],
    ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"],
    ["ORIGINAL", "PRIMARY", "AXIAL", "ADD"],
    ["ORIGINAL", "PRIMARY", "PERFUSION", "NONE"],
    ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM7 SPP"],
    ["DERIVED", "SECONDARY"],
    ["DERIVED", "SECONDARY", "MPR"],
    ["DERIVED", "SECONDARY", "REFORMATTED"],
    ["DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL", "CORONAL", "CT_SOM5 SPI"],
    [],
]
DERIVED = {
    "maximum": ["MIP", "MAX_IP", "CSA MIP", "MIPTHICK", "MAXIMUM", "TMIP"],
    "minimum": ["MINIP", "MIN_IP", "MINIMUM"],
    "average": ["AVERAGE", "AVG", "MEAN"],
    "screen": ["SCREEN SAVE", "SCREENSAVE"],
    "rendering": ["VRT", "VR", "SSD"],
    "difference": ["SUBTRACTION"],
    "map": ["CBF", "RCBV", "MTT", "TMAX", "PERFUSION", "QUANTITY"],
    "monoenergetic": ["VMI", "MONO_E_40", "MONOENERGETIC", "70 KEV", "40KEV", "KEV70"],
    "material": [
        "MAT_SPECIFIC",
        "EFF_ATOMIC_NUM",
        "ELECTRON_DENSITY",
        "RHO_Z",
        "VNC",
        "VNCA",
        "VUE",
        "IODINE",
        "PBV",
        "DE_CA_SUPPR",
    ],
    "overlay": ["CSA OVERLAY"],
    "fused": ["FUSION"],
}


@pytest.mark.parametrize("values", REAL, ids="-".join)
def test_scans_as_scanners_write_them(values):
    header = Dataset()
    header.ImageType, header.SliceThickness = values, 1.5
    assert origin_of(header) == Origin()


@pytest.mark.parametrize(("words", "value"), [(words, value) for words, values in DERIVED.items() for value in values])
def test_what_others_derived(words, value):
    header = Dataset()
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL", value]
    origin = origin_of(header)
    assert (origin.kind, origin.refused) == ("derived", True)
    assert words in origin.what
    assert value.upper() in origin.what


def test_reformats_in_thick_slabs_and_images_of_one_energy():
    header = Dataset()
    header.ImageType, header.SliceThickness = ["DERIVED", "SECONDARY", "MPR"], 10
    assert origin_of(header).what == "reformat in slabs of 10 mm (Image Type MPR)"
    header.SliceThickness = 3
    header.ImageType = ["DERIVED", "SECONDARY", "MPR", "THICK"]
    assert origin_of(header).refused
    header.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    assert not origin_of(header).refused
    header.MonoenergeticEnergyEquivalent = 70.0
    assert "monoenergetic" in origin_of(header).what


def test_enhanced_frames_say_what_they_are():
    ds = valid_enhanced(np.zeros((3, 4, 6), int), [(0, 0, k) for k in range(3)])
    assert origin_of(ds) == Origin()
    ds.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType = [
        "DERIVED",
        "PRIMARY",
        "VOLUME",
        "MAXIMUM",
    ]
    assert "maximum" in origin_of(ds).what


KEPT = {
    "all": (),
    "code": ("ContributingEquipmentSequence", "DerivationDescription"),
    "equipment": ("DerivationCodeSequence", "DerivationDescription"),
    "description": ("DerivationCodeSequence", "ContributingEquipmentSequence"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mark", KEPT)
def test_one_own_mark_is_enough(tmp_path, kind, mark):
    """Archives and de-identification take marks away; what is left must do."""
    ct_series(tmp_path / "in", POSITIONS[:2], StudyInstanceUID="1.9")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", kinds=tuple(dict.fromkeys(("denoised", kind))))
    for path in made[kind].iterdir():
        ds = pydicom.dcmread(path)
        for name in KEPT[mark]:
            delattr(ds, name)
        ds.save_as(path)
    found = search(made[kind])
    assert set(found.derived) == set(made[kind].iterdir())
    known = "denoised" if mark == "code" else kind
    assert set(found.derived.values()) == {f"result of ct-cncl ({known})"}
    assert len(find_scans(made[kind])) == 1  # evaluate, prepare and noise read it as before


def test_results_in_enhanced_frames(tmp_path):
    save(valid_enhanced(np.zeros((3, 4, 6), int), POSITIONS[:3]), tmp_path / "in" / "a.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", kinds=("denoised", "noise"))
    for kind, folder in made.items():
        (ds,) = datasets(folder)
        assert origin_of(ds).what == f"result of ct-cncl ({kind})"
        del ds.ContributingEquipmentSequence
        assert origin_of(ds).kind == "result"


def test_simulated_scans_are_scans_and_their_results_are_results(tmp_path):
    code = item(CodeValue=SIMULATED_CODE, CodingSchemeDesignator="99CTCNCL", CodeMeaning="Simulated low dose")
    equipment = item(ManufacturerModelName="ct-cncl", ContributionDescription="ct-cncl 0.2.0: simulated low dose, 0.25")
    marks = {"DerivationCodeSequence": [code], "ContributingEquipmentSequence": [equipment]}
    ct_series(tmp_path / "in", POSITIONS[:2], StudyInstanceUID="1.9", **marks)
    (found,) = {origin_of(ds) for ds in datasets(tmp_path / "in")}
    assert (found.kind, found.refused) == ("simulated", False)
    assert not search(tmp_path / "in").derived
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert {origin_of(ds).what for ds in datasets(made["denoised"])} == {"result of ct-cncl (denoised)"}
    again, _, _ = derive(made["denoised"], tmp_path / "w2", derivation=replace(DONE, strength=0.5))
    assert {origin_of(ds).kind for ds in datasets(again["denoised"])} == {"result"}


def test_other_sequences_and_damaged_values_mark_nothing():
    header = ct_slice(np.eye(4), POSITIONS[0])
    header.ContributingEquipmentSequence = [
        item(ManufacturerModelName="TrueFidelity", ContributionDescription="denoised")
    ]
    header.DerivationCodeSequence = [item(CodeValue="113037", CodingSchemeDesignator="DCM")]
    header.DerivationDescription = "Lossless JPEG compression"
    assert origin_of(header) == Origin()


def test_volume_files_are_known_by_the_record_beside_them(tmp_path):
    """A NIfTI header has no place for a mark that would leave it as its source's."""
    for name in ("a_denoised.nii.gz", "a_noise.nii.gz", "b_denoised.nii.gz", "a.nii.gz"):
        nifti(tmp_path / name, np.zeros((3, 4, 2), np.int16), np.eye(4))
    record = {"result": {"denoised": "x/a_denoised.nii.gz", "noise": "x/a_noise.nii.gz"}, "weights": "ab"}
    (tmp_path / "a_denoised.nii.gz.json").write_text(json.dumps(record))
    (tmp_path / "b_denoised.nii.gz.json").write_text(json.dumps({"dose_fraction": 0.25}))
    assert {path.name: what for path, what in search(tmp_path).derived.items()} == {
        "a_denoised.nii.gz": "result of ct-cncl (denoised)",
        "a_noise.nii.gz": "result of ct-cncl (noise)",
    }
    assert origin_of_file(tmp_path / "a_noise.nii.gz").kind == "result"
