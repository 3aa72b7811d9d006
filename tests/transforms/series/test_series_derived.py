"""What derived DICOM files say of themselves, against PS3.3; and that they say nothing else that the source did not."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
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
from ct_cncl.transforms.series.content import content_digest
from ct_cncl.transforms.series.derivation import Derivation

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
        assert result.SeriesNumber == 2701
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


def test_uids_depend_on_all_that_can_change_the_object_but_the_time(tmp_path):
    series(tmp_path / "in")

    def uids(name, derivation, kinds=("denoised",)):
        made, _, _ = derive(tmp_path / "in", tmp_path / name, kinds=kinds, derivation=derivation)
        return {kind: [(ds.SeriesInstanceUID, ds.SOPInstanceUID) for ds in datasets(made[kind])] for kind in kinds}

    first = uids("a", DONE, ("denoised", "noise"))
    later = replace(DONE, made=datetime(2026, 2, 3, tzinfo=timezone.utc))
    assert uids("b", later)["denoised"] == first["denoised"]
    others = [
        replace(DONE, weights="f" * 64),
        replace(DONE, version="1.2.4"),
        replace(DONE, strength=0.5),
        replace(DONE, strength=1 - 1e-9),
        replace(DONE, warnings=("a slice is missing",)),
        replace(DONE, precision="bf16"),
        replace(DONE, compression="rle"),
        replace(DONE, content="c" * 64),
    ]
    seen = {uid for pair in first["denoised"] for uid in pair}
    for other in (first["noise"], *(uids(f"c{k}", other)["denoised"] for k, other in enumerate(others))):
        here = {uid for pair in other for uid in pair}
        assert not here & seen
        seen |= here


def test_content_is_what_a_series_holds_not_how_its_files_are_laid_out(tmp_path):
    """As a PACS sends it back: other names and file meta, sequences of undefined length, the other plain encoding."""
    for k, folder in enumerate(("in", "back", "archive", "pixel", "name", "item", "zero")):
        rng = np.random.default_rng(0)
        for number in range(3):
            values = rng.integers(0, 2000, (4, 6))
            ds = ct_slice(values, POSITIONS[number], **STATED)
            ds.SOPInstanceUID = f"1.2.3.{number}"
            ds.RequestAttributesSequence = [item(ScheduledProcedureStepID="S1")]
            ds.ReferencedImageSequence = [item(ReferencedSOPInstanceUID="1.2.3", ReferencedFrameNumber=1)]
            ds.SmallestImagePixelValue = 0
            if folder == "pixel" and number == 1:
                ds.PixelData = ds.PixelData[:-2] + b"\1\0"
            elif folder == "name":
                ds.PatientName = "Müller^Jörg"
            elif folder == "item":
                ds.RequestAttributesSequence[0].ScheduledProcedureStepID = "S2"
            elif folder == "zero":
                ds.SmallestImagePixelValue = None
            path = save(ds, tmp_path / folder / f"{(number + k) % 3}.dcm")
            if folder == "archive":
                ds["ReferencedImageSequence"].is_undefined_length = True
                ds.save_as(path, enforce_file_format=True)
            if folder == "back":
                ds["RequestAttributesSequence"].is_undefined_length = True
                ds.file_meta.ImplementationVersionName = "PACS"
                ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
                ds.save_as(path, enforce_file_format=True, implicit_vr=True, little_endian=True)
    digests = {
        name: content_digest((tmp_path / name).iterdir())
        for name in ("in", "back", "archive", "pixel", "name", "item", "zero")
    }
    assert digests["in"] == digests["back"] == digests["archive"]
    assert len(set(digests.values())) == 5
    assert content_digest(list((tmp_path / "in").iterdir())[:2]) not in digests.values()


def test_times_are_those_of_the_making(tmp_path):
    """Study and acquisition stay the scanner's; the zone is the one that the source states for its times."""
    times = {"StudyDate": "20200101", "AcquisitionDate": "20200102", "AcquisitionTime": "120000"}
    series(
        tmp_path / "in", **times, SeriesDate="20200101", TimezoneOffsetFromUTC="-0330", InstanceCreationDate="20200103"
    )
    made_at = datetime(2026, 1, 1, 2, 0, 5, tzinfo=timezone.utc)
    results = [
        datasets(derive(tmp_path / "in", tmp_path / name, derivation=replace(DONE, made=at))[0]["denoised"])
        for name, at in (("a", made_at), ("b", made_at + timedelta(days=400)))
    ]
    for ds in results[0]:
        for name in ("InstanceCreation", "Content", "Series"):
            assert (ds[f"{name}Date"].value, ds[f"{name}Time"].value) == ("20251231", "223005"), name
        assert {name: ds[name].value for name in times} == times
        assert ds.ContributingEquipmentSequence[-1].ContributionDateTime == "20251231223005-0330"
    for first, second in zip(*results):
        for ds in (first, second):
            for name in ("InstanceCreation", "Content", "Series"):
                del ds[f"{name}Date"], ds[f"{name}Time"]
            del ds.ContributingEquipmentSequence[-1].ContributionDateTime
        assert elements(first) == elements(second)
        assert first.PixelData == second.PixelData


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


def numbers(folder, number, uid="1.2.3.1", **options):
    save(
        ct_slice(np.eye(4), POSITIONS[0], StudyInstanceUID="1.9", SeriesNumber=number, uid=uid), folder / "in" / "a.dcm"
    )
    kinds = ("denoised", "noise", "content", "disagreement", "removed")
    made, _, _ = derive(folder / "in", folder / "w", kinds=kinds, derivation=replace(DONE, **options))
    return {kind: int(datasets(made[kind])[0].SeriesNumber) for kind in kinds}


def test_series_numbers_never_meet(tmp_path):
    """Of sources with a number, without one, with 0, below it, or one too large to be multiplied; of strengths and kinds."""
    assert numbers(tmp_path / "plain", 7) == {
        "denoised": 7001, "noise": 7002, "content": 7003, "disagreement": 7004, "removed": 7005,
    }  # fmt: skip
    assert numbers(tmp_path / "half", 7, strength=0.5)["denoised"] == 7501
    cases = [(number, {}) for number in (7, None, 0, -3, 2147483, 2147482, 2**31 - 1)]
    cases += [(7, {"strength": strength}) for strength in (0.0, 0.001, 0.5, 0.501, 0.99, 0.995)]
    cases += [(7, {"precision": "bf16"})]
    seen = set()
    for k, (number, options) in enumerate(cases):
        here = set(numbers(tmp_path / str(k), number, uid=f"1.2.3.{k}", **options).values())
        assert len(here) == 5
        assert all(0 < value < 2**31 for value in here)
        assert not here & seen
        seen |= here


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


def test_maps_are_signed_hu_in_steps_and_a_window_that_show_them(tmp_path):
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
    windows, steps = ((0, 100), None, (1.5, 3)), (0.125, 1, 0.0625)
    for kind, number, window, step in zip(kinds, (2002, 2003, 2004), windows, steps):
        for ds in datasets(made[kind]):
            assert (ds.PixelRepresentation, ds.BitsStored, ds.HighBit) == (1, 16, 15)
            assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (step, 0, "HU")
            assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", kind.upper()]
            assert ds.SeriesNumber == number
            assert "PixelPaddingValue" not in ds
            assert "SmallestImagePixelValue" not in ds
            assert round(-12.6 / step) in np.unique(ds.pixel_array)
            if window:
                assert (ds.WindowCenter, ds.WindowWidth) == window
    assert {kind: found.count for kind, found in writer.clipped.items()} == dict.fromkeys(kinds, 0)


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
    assert (transformation.RescaleSlope, transformation.RescaleIntercept) == (0.125, 0)
    np.testing.assert_array_equal(noise.pixel_array, (stored - 1024) * 8)


@pytest.mark.parametrize("slope", ["1", "0.001", "2.5"])
def test_source_is_result_and_what_was_removed(tmp_path, slope):
    series(tmp_path / "in", slope=slope, PixelPaddingValue=5)
    kinds = ("denoised", "removed")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", lambda hu: hu * np.float32(0.9) - 7, kinds=kinds)
    source, result, removed = (by_position(datasets(folder)) for folder in (tmp_path / "in", *made.values()))
    for place, ds in removed.items():
        assert (ds.RescaleSlope, ds.RescaleIntercept) == (float(slope), 0)
        assert np.abs(ds.pixel_array).max() > 1
        np.testing.assert_array_equal(source[place].pixel_array, result[place].pixel_array + ds.pixel_array)


def test_what_was_removed_from_enhanced_frames_of_different_slopes(tmp_path):
    from series_files import enhanced as enhanced_slopes

    stored = np.random.default_rng(3).integers(0, 2000, (3, 4, 6))
    ds = enhanced_slopes(stored, POSITIONS[:3])
    ds.StudyInstanceUID = "1.9"
    save(ds, tmp_path / "in" / "a.dcm")
    made, _, _ = derive(tmp_path / "in", tmp_path / "w", lambda hu: hu - 12, kinds=("denoised", "removed"))
    (removed,) = datasets(made["removed"])
    for k, group in enumerate(removed.PerFrameFunctionalGroupsSequence):
        (rescale,) = group.PixelValueTransformationSequence
        assert (rescale.RescaleSlope, rescale.RescaleIntercept) == (k + 1, 0)
        assert (removed.pixel_array[k] == 12 // (k + 1)).all()


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
