"""What of a study is a scan, what is a result of ours, and what others derived: by marks, each of which is enough."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from derive_files import DONE, datasets, derive
from enhanced_files import item, valid_enhanced
from pydicom.dataset import Dataset, FileMetaDataset
from series_files import POSITIONS, ct_series, ct_slice, nifti, save

from ct_cncl.transforms.series.derivation import IMPLEMENTATION, KINDS
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
    ["DERIVED", "SECONDARY", "RFMT"],
    ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI DUAL"],
    ["ORIGINAL", "PRIMARY", "AXIAL", "GSI"],
    ["DERIVED", "PRIMARY", "AXIAL", "DE", "ENERGY_PROP_WT"],
    ["DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL", "CORONAL", "CT_SOM5 SPI"],
    [],
]
DERIVED = {
    "maximum": ["MIP", "MAX_IP", "CSA MIP", "MIPTHICK", "MAXIMUM", "TMIP", "THICKMIP", "CT_SOM5 MIP", "TSMIP", "MAXIP"],
    "minimum": ["MINIP", "MIN_IP", "MINIMUM"],
    "average": ["AVERAGE", "AVG", "MEAN", "MPR_AVE", "AVIP", "AVE_IP", "RAYSUM"],
    "screen": ["SCREEN SAVE", "SCREENSAVE", "SCREEN_DUMP", "VXTL STATE"],
    "rendering": ["VRT", "VR", "SSD", "CVRT", "VOLREN", "VOLUME_RENDER", "VIRTUAL_ENDOSCOPY"],
    "difference": ["SUBTRACTION"],
    "map": [
        "CBF",
        "RCBV",
        "MTT",
        "TMAX",
        "PERFUSION",
        "QUANTITY",
        "VPCT_CBV",
        "NOISE",
        "DISAGREEMENT",
        "CONTENT",
        "REMOVED",
    ],
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
        "MATERIAL DENSITY",
        "GSI MD",
        "WATER(IODINE)",
        "VIRTUAL_NONCONTRAST",
        "VIRTUAL UNENHANCED",
    ],
    "overlay": ["CSA OVERLAY"],
    "fused": ["FUSION", "MASK", "BONE_REMOVED"],
}


@pytest.mark.parametrize("values", REAL, ids="-".join)
def test_scans_as_scanners_write_them(values):
    header = Dataset()
    header.ImageType, header.SliceThickness = values, 1.5
    assert origin_of(header) == Origin()


@pytest.mark.filterwarnings("ignore:The value length")  # of pydicom: scanners write longer ones
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


def test_reformats_in_slabs_by_other_words():
    header = Dataset()
    for value, thickness in (("RFMT", 5), ("CURVED", 8), ("MULTIPLANAR", 4), ("MPR_SLAB", 2)):
        header.ImageType, header.SliceThickness = ["DERIVED", "SECONDARY", value], thickness
        assert origin_of(header).what == f"reformat in slabs of {thickness} mm (Image Type {value})"


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


def with_denoised(kind):
    return ("denoised", kind) if kind == "removed" else (kind,)


def stripped(folder, names):
    """What anonymizers leave of a result."""
    headers = datasets(folder)
    for header in headers:
        for name in names:
            delattr(header, name)
    return headers


MARKS = ("DerivationCodeSequence", "ContributingEquipmentSequence", "DerivationDescription")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "last", [("CodingSchemeIdentificationSequence",), ("SeriesDescription",)], ids=["description", "scheme"]
)
def test_a_result_without_its_marks_is_known_by_its_description_or_its_scheme(tmp_path, kind, last):
    ct_series(tmp_path / "s", POSITIONS[:2], StudyInstanceUID="1.9", SeriesDescription="Thorax 2.0")
    made, _, _ = derive(tmp_path / "s", tmp_path / "w", kinds=with_denoised(kind))
    for header in stripped(made[kind], [*MARKS, *last]):
        header.file_meta = FileMetaDataset()  # written anew
        assert origin_of(header).kind == "result"
        assert kind in origin_of(header).what or last == ("SeriesDescription",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_whose_header_says_nothing_is_known_by_its_file_meta(tmp_path, kind):
    """As long as nobody writes that anew: programs that change a header and save it do not."""
    ct_series(tmp_path / "s", POSITIONS[:2], StudyInstanceUID="1.9")
    made, _, _ = derive(tmp_path / "s", tmp_path / "w", kinds=with_denoised(kind))
    for header in stripped(made[kind], [*MARKS, "SeriesDescription", "CodingSchemeIdentificationSequence"]):
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.save_as(tmp_path / "a.dcm")
        assert search(tmp_path / "a.dcm").derived == {tmp_path / "a.dcm": f"result of ct-cncl ({kind})"}


def test_a_simulated_scan_whose_header_says_nothing_is_no_result():
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.ImplementationClassUID, header.file_meta.ImplementationVersionName = (
        IMPLEMENTATION,
        "ct-cncl lowdose",
    )
    assert origin_of(header).kind == "simulated"


def test_a_map_without_any_mark_is_known_by_its_image_type(tmp_path):
    ct_series(tmp_path / "s", POSITIONS[:2], StudyInstanceUID="1.9")
    for kind in ("noise", "content", "disagreement", "removed"):
        made, _, _ = derive(tmp_path / "s", tmp_path / kind, kinds=with_denoised(kind))
        for header in stripped(made[kind], [*MARKS, "SeriesDescription", "CodingSchemeIdentificationSequence"]):
            header.file_meta = FileMetaDataset()
            assert origin_of(header).what.startswith("map (Image Type")


def test_a_simulated_scan_is_known_by_its_description():
    header = Dataset()
    header.SeriesDescription = "Thorax 2.0 simulated low dose 0.25"
    assert origin_of(header).kind == "simulated"
    header.SeriesDescription = "Thorax 2.0 simulated low dose 0.25 denoised CNCL"
    assert origin_of(header) == Origin("result", "result of ct-cncl (denoised)")
    header.SeriesDescription = "Thorax denoised"
    assert origin_of(header) == Origin()


SIDECARS = {
    "ours": ({"SeriesDescription": "Thorax 2.0 denoised CNCL", "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "result of ct-cncl (denoised)"),
    "our map": ({"SeriesDescription": "x removed, source - result, HU CNCL"}, "result of ct-cncl (removed)"),
    "our equipment": ({"ManufacturersModelName": "ct-cncl"}, "result of ct-cncl (denoised)"),
    "our simulation": ({"ManufacturersModelName": "ct-cncl", "SeriesDescription": "simulated low dose 0.5"}, "low dose simulated by ct-cncl"),
    "a MIP": ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "maximum intensity projection (Image Type MIP)"),
    "slabs": ({"ImageType": ["DERIVED", "SECONDARY", "MPR"], "SliceThickness": 8}, "reformat in slabs of 8 mm (Image Type MPR)"),
    "a scanner's": ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SeriesDescription": "Thorax 2.0"}, ""),
    "nonsense": ({"ImageType": 3, "SeriesDescription": None, "SliceThickness": "x"}, ""),
    "a list": ([1, 2], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDECARS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_converted_results_are_known_by_their_sidecar(tmp_path, name, suffix):
    content, what = SIDECARS[name]
    path = nifti(tmp_path / f"a{suffix}", np.arange(-60, 60, dtype=np.int16).reshape(5, 4, 6), np.eye(4))
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert origin_of_file(path).what == what
    assert search(tmp_path).derived == ({} if not what or "simulated" in what else {path: what})


@pytest.mark.parametrize("kind", ["denoised", "removed"])
def test_dcm2niix_converts_results_into_results(tmp_path, kind):
    dcm2niix = pytest.importorskip("dcm2niix")
    ct_series(
        tmp_path / "s",
        POSITIONS[:3],
        StudyInstanceUID="1.9",
        SeriesDescription="Thorax 2.0",
        PatientName="A^B",
        StudyDate="20200101",
    )
    made, _, _ = derive(tmp_path / "s", tmp_path / "w", kinds=with_denoised(kind))
    (tmp_path / "out").mkdir()
    subprocess.run(
        [dcm2niix.bin, "-z", "y", "-o", str(tmp_path / "out"), str(made[kind])], check=True, capture_output=True
    )
    (path,) = (tmp_path / "out").glob("*.nii.gz")
    assert origin_of_file(path) == Origin("result", f"result of ct-cncl ({kind})")
