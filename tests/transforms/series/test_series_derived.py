"""What derived DICOM files say of themselves, against PS3.3; and that they say nothing else that the source did not."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from derive_files import DONE, WEIGHTS, datasets, derive, elements
from enhanced_files import item, valid_enhanced
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from series_files import POSITIONS, ct_series, ct_slice, save

from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.derived import Derivation

CHANGED = {
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ImageType", "DerivationDescription",
    "DerivationCodeSequence", "SourceImageSequence", "ContributingEquipmentSequence", "CodingSchemeIdentificationSequence",
}  # fmt: skip
STATED = {
    "StudyInstanceUID": "1.2.3.9", "FrameOfReferenceUID": "1.2.3.8", "SeriesDescription": "Abdomen  1.5  B30f",
    "InstanceNumber": 7, "PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100", "KVP": "120",
    "LossyImageCompression": "00", "WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"],
}  # fmt: skip


def series(folder: Path, count=3, **changes) -> np.ndarray:
    return ct_series(folder, POSITIONS[:count], **(STATED | changes))


def by_position(found):
    return {float(ds.ImagePositionPatient[2]): ds for ds in found}


def test_identity_and_provenance(tmp_path):
    series(tmp_path / "in", ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"])
    made, _, _ = derive(
        tmp_path / "in", tmp_path / "w", derivation=Derivation(WEIGHTS, "1.2.3", 0.7, ("pixels too large",))
    )
    sources, results = by_position(datasets(tmp_path / "in")), by_position(datasets(made["denoised"]))
    assert sorted(sources) == sorted(results)
    assert len({ds.SOPInstanceUID for ds in results.values()}) == 3
    assert len({ds.SeriesInstanceUID for ds in results.values()}) == 1
    for place, result in results.items():
        source = sources[place]
        assert (result.StudyInstanceUID, result.FrameOfReferenceUID) == ("1.2.3.9", "1.2.3.8")
        assert result.SOPInstanceUID not in {ds.SOPInstanceUID for ds in sources.values()}
        assert result.SeriesInstanceUID != source.SeriesInstanceUID
        assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
        assert list(result.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI"]
        assert result.SeriesNumber == 2001
        assert result.SeriesDescription == "Abdomen  1.5  B30f denoised CNCL 0.7"
        (reference,) = result.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        for text in ("1.2.3", WEIGHTS[:16], "strength 0.7", "pixels too large"):
            assert text in result.DerivationDescription
        (equipment,) = result.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert list(equipment.SoftwareVersions) == ["1.2.3", f"weights {WEIGHTS[:32]}"]


def add_everything(ds: Dataset) -> None:
    """Private attributes before and behind the pixels, nested items, an overlay, another's equipment, odd values."""
    block = ds.private_block(0x0019, "SOMEBODY", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "OB", b"\1\2\3\4")
    ds.private_block(0x7FE3, "BEHIND", create=True).add_new(0x01, "UN", b"behind the pixels ")
    ds.RequestAttributesSequence = [item(ScheduledProcedureStepID="S1", RequestedProcedureID="R1")]
    ds.ContributingEquipmentSequence = [item(Manufacturer="Other")]
    ds.add_new(0x60000010, "US", 4)
    ds.add_new(0x60003000, "OW", b"\5\6")
    ds.ReferencedImageSequence = [item(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.3")]
    ds.SliceLocation = "1" * 16
    ds.PixelAspectRatio = [1, 1]


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "rle"])
def test_every_other_attribute_is_kept(tmp_path, syntax):
    ds = ct_slice(np.arange(24).reshape(4, 6), POSITIONS[0], **STATED)
    add_everything(ds)
    path = tmp_path / "in" / "a.dcm"
    path.parent.mkdir()
    if syntax == "rle":
        save(ds, path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    else:
        uids = {"implicit": ImplicitVRLittleEndian, "big": ExplicitVRBigEndian}
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = uids.get(syntax, "1.2.840.10008.1.2.1")
        if syntax == "big":
            ds.PixelData = np.arange(24).astype(">i2").tobytes()
            ds[0x60003000].value = b"\6\5"
        ds.save_as(path, enforce_file_format=True)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    source, (result,) = pydicom.dcmread(path), datasets(made["denoised"])
    before, after = elements(source), elements(result)
    changed = {pydicom.datadict.tag_for_keyword(name) for name in CHANGED}
    assert set(after) - changed == set(before) - changed
    for tag in set(before) - changed - {0x60003000}:
        assert after[tag] == before[tag], tag
    assert result[0x7FE31001].value.strip() == b"behind the pixels"
    assert [each.Manufacturer for each in result.ContributingEquipmentSequence] == ["Other", "ct-cncl developers"]
    assert str(result.PatientName) == "Müller^Jürgen"
    np.testing.assert_array_equal(result.pixel_array, np.arange(24).reshape(4, 6))
    expected = ImplicitVRLittleEndian if syntax == "implicit" else "1.2.840.10008.1.2.1"
    assert result.file_meta.TransferSyntaxUID == expected


def test_uids_depend_on_source_weights_strength_and_kind_alone(tmp_path):
    series(tmp_path / "in")

    def uids(name, derivation, kinds=("denoised",)):
        made, _, _ = derive(tmp_path / "in", tmp_path / name, kinds=kinds, derivation=derivation)
        return {kind: [(ds.SeriesInstanceUID, ds.SOPInstanceUID) for ds in datasets(made[kind])] for kind in kinds}

    first = uids("a", DONE, ("denoised", "noise"))
    assert uids("b", Derivation(WEIGHTS, "another version", 1.0, ("a warning",)))["denoised"] == first["denoised"]
    others = [
        uids("c", Derivation("f" * 64, "1.2.3"))["denoised"],
        uids("d", Derivation(WEIGHTS, "1.2.3", 0.5))["denoised"],
    ]
    for other in (*others, first["noise"]):
        assert not {uid for pair in other for uid in pair} & {uid for pair in first["denoised"] for uid in pair}


def test_the_same_run_writes_the_same_bytes(tmp_path):
    series(tmp_path / "in")
    first, second = (derive(tmp_path / "in", tmp_path / name)[0]["denoised"] for name in "ab")
    assert [p.read_bytes() for p in sorted(first.iterdir())] == [p.read_bytes() for p in sorted(second.iterdir())]


def test_what_belongs_to_the_source_file_alone_goes(tmp_path):
    series(tmp_path / "in", InstanceCreationDate="20200101", LargestPixelValueInSeries=5)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert not any(
        "InstanceCreationDate" in ds or "LargestPixelValueInSeries" in ds for ds in datasets(made["denoised"])
    )


@pytest.mark.parametrize(("number", "expected"), [(None, 1), (0, 1), (7, 7001), (2**31 - 1, 1)])
def test_series_number(tmp_path, number, expected):
    save(ct_slice(np.eye(4), POSITIONS[0], StudyInstanceUID="1.9", SeriesNumber=number), tmp_path / "in" / "a.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert datasets(made["denoised"])[0].SeriesNumber == expected


def test_a_long_description_keeps_room_for_ours(tmp_path):
    series(tmp_path / "in", SeriesDescription="x" * 64)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    text = datasets(made["denoised"])[0].SeriesDescription
    assert len(text) == 64
    assert text.endswith(" denoised CNCL")


@pytest.mark.parametrize("name", ["SOPInstanceUID", "StudyInstanceUID"])
def test_a_source_without_identity_is_refused(tmp_path, name):
    ds = ct_slice(np.eye(4), POSITIONS[0], StudyInstanceUID="1.9")
    path = save(ds, tmp_path / "in" / "a.dcm")
    ds[name].value = ""
    ds.preamble = b"\0" * 128
    ds.save_as(path)
    with pytest.raises(ScanError, match=f"expected a {name}"):
        derive(tmp_path / "in", tmp_path / "w")


def test_lossy_sources_stay_lossy(tmp_path):
    series(tmp_path / "in", LossyImageCompression="01", LossyImageCompressionRatio="9.5")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    for ds in datasets(made["denoised"]):
        assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 9.5)


def test_maps_are_signed_whole_hu_of_their_own(tmp_path):
    series(
        tmp_path / "in",
        signed=False,
        slope="2",
        BitsStored=12,
        HighBit=11,
        PixelPaddingValue=0,
        SmallestImagePixelValue=0,
        LargestImagePixelValue=5,
    )
    kinds = ("noise", "content", "disagreement")
    made, writer, _ = derive(tmp_path / "in", tmp_path / "w", lambda hu: np.full_like(hu, -12.6), kinds=kinds)
    for kind, number, window in zip(kinds, (2002, 2003, 2004), ((0, 200), None, (50, 100))):
        for ds in datasets(made[kind]):
            assert (ds.PixelRepresentation, ds.BitsStored, ds.HighBit) == (1, 16, 15)
            assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, 0, "HU")
            assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", kind.upper()]
            assert ds.SeriesNumber == number
            assert "PixelPaddingValue" not in ds
            assert "SmallestImagePixelValue" not in ds
            assert {-13} <= set(np.unique(ds.pixel_array))
            if window:
                assert (ds.WindowCenter, ds.WindowWidth) == window
    assert writer.clipped == dict.fromkeys(kinds, 0)


def enhanced(tmp_path, order=(0, 1, 2), **options):
    stored = np.random.default_rng(3).integers(0, 2000, (3, 8, 6))
    save(valid_enhanced(stored, [POSITIONS[k] for k in order], **options), tmp_path / "in" / "a.dcm")
    return stored


def test_enhanced_in_enhanced_out(tmp_path):
    """Frames stay where they are in the file, whatever their order in space; value 2 of Image Type is PRIMARY there."""
    stored = enhanced(tmp_path, order=(2, 0, 1))
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", kinds=("denoised", "noise"))
    source, (result,) = datasets(tmp_path / "in")[0], datasets(made["denoised"])
    np.testing.assert_array_equal(result.pixel_array, stored)
    assert list(result.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert list(result.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType) == list(
        result.ImageType
    )
    for k, group in enumerate(result.PerFrameFunctionalGroupsSequence):
        (derivation,) = group.DerivationImageSequence
        (reference,) = derivation.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedFrameNumber == k + 1
        assert derivation.DerivationCodeSequence[0].CodingSchemeDesignator == "99CTCNCL"
        assert group.PlanePositionSequence == source.PerFrameFunctionalGroupsSequence[k].PlanePositionSequence
    (evidence,) = result.SourceImageEvidenceSequence
    assert (
        evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    )
    (noise,) = datasets(made["noise"])
    transformation = noise.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    assert (transformation.RescaleSlope, transformation.RescaleIntercept) == (1, 0)
    np.testing.assert_array_equal(noise.pixel_array, stored - 1024)


def test_an_earlier_derivation_of_enhanced_frames_is_kept(tmp_path):
    enhanced(tmp_path)
    path = next((tmp_path / "in").iterdir())
    ds = pydicom.dcmread(path)
    ds.SharedFunctionalGroupsSequence[0].DerivationImageSequence = [item(DerivationDescription="earlier")]
    ds.save_as(path)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    (result,) = datasets(made["denoised"])
    assert "DerivationImageSequence" not in result.SharedFunctionalGroupsSequence[0]
    for group in result.PerFrameFunctionalGroupsSequence:
        assert [step.DerivationDescription[:7] for step in group.DerivationImageSequence] == ["earlier", "ct-cncl"]


def test_parts_of_a_split_series_become_series_of_their_own(tmp_path):
    ct_series(tmp_path / "in", POSITIONS[:2], **STATED)
    for k in (0, 1):
        save(ct_slice(np.eye(7), (0, 0, k), **STATED), tmp_path / "in" / f"other{k}.dcm")
    from ct_cncl.transforms.series import find_scans

    uids = set()
    for k, part in enumerate(find_scans(tmp_path / "in")):
        folder = tmp_path / f"part{k}"
        folder.mkdir()
        from ct_cncl.transforms.series.results import open_results
        from ct_cncl.transforms.series.slices import open_slices

        slices = open_slices(part, folder)
        writer = open_results(slices, ["denoised"], folder, DONE)
        for number in range(slices.count):
            own = slices.read(number)
            writer.write(number, own, {"denoised": own.hu})
        uids.add(datasets(writer.finish()["denoised"])[0].SeriesInstanceUID)
    assert len(uids) == 2
