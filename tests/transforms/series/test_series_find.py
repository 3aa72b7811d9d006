"""What a search finds and what it passes over; archives, DICOMDIR, chosen series, files that cannot be read."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from derive_files import datasets, derive
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import SecondaryCaptureImageStorage
from series_files import POSITIONS, ct_series, ct_slice, save

from ct_cncl.transforms.series import ScanError, find_scans, read_scan
from ct_cncl.transforms.series.archive_file import unzip
from ct_cncl.transforms.series.dicom import open_series
from ct_cncl.transforms.series.find import choose, search


def two_series(folder):
    ct_series(folder / "a", POSITIONS, uid="1.2.1", SeriesNumber=3)
    ct_series(folder / "b", POSITIONS[:3], uid="1.2.2", SeriesNumber=4)


def test_choose_by_number_name_tag_or_uid(tmp_path):
    two_series(tmp_path)
    first, second = find_scans(tmp_path)
    for text in ("4", second.name, second.tag, "1.2.2"):
        assert choose([first, second], [text]) == [second]
    assert choose([first, second], []) == [first, second]
    assert choose([first, second], ["4", "3"]) == [first, second]
    with pytest.raises(ScanError, match=r"5: expected the number, name or tag of a series.*a_series003"):
        choose([first, second], ["5"])


def test_what_is_passed_over_is_named(tmp_path):
    two_series(tmp_path)
    save(ct_slice(np.eye(9), POSITIONS[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "scout.dcm")
    save(
        ct_slice(np.eye(9), POSITIONS[0], SOPClassUID=SecondaryCaptureImageStorage, Modality="SR"),
        tmp_path / "dose.dcm",
    )
    (tmp_path / "notes.txt").write_text("x")
    found = search(tmp_path)
    assert found.others == "1 x LOCALIZER (scout.dcm), 1 x SR (dose.dcm), 1 x files of other kinds"
    assert len(found.scans) == 2


def test_a_broken_file_takes_its_series_along_and_no_other(tmp_path):
    two_series(tmp_path)
    path = tmp_path / "b" / "001.dcm"
    path.write_bytes(path.read_bytes()[:-60])  # the header is whole: it says which series
    stray = tmp_path / "c.dcm"
    stray.write_bytes(b"nothing")
    found = search(tmp_path)
    assert [scan.name for scan in found.scans] == ["a_series003"]
    assert {item.path: item.scan and item.scan.name for item in found.broken} == {path: "b_series004", stray: None}
    with pytest.raises(ScanError, match=r"(001|c)\.dcm"):
        find_scans(tmp_path)


def test_copies_are_left_out_and_impostors_refused(tmp_path):
    stored = ct_series(tmp_path / "in", POSITIONS[:3], StudyInstanceUID="1.9")
    (tmp_path / "in" / "again.dcm").write_bytes((tmp_path / "in" / "001.dcm").read_bytes())
    series = open_series(find_scans(tmp_path / "in")[0])
    assert [path.name for path in series.copies] == ["again.dcm"]
    made, _, slices = derive(tmp_path / "in", tmp_path / "w")
    assert slices.problems == ["left out second copies of 1 image"]
    assert len(datasets(made["denoised"])) == 3
    with pytest.raises(ScanError, match="a second file of the same image"):
        read_scan(tmp_path / "in")
    ds = pydicom.dcmread(tmp_path / "in" / "again.dcm")
    ds.PixelData = stored[0].astype("<i2").tobytes()[::-1]
    ds.save_as(tmp_path / "in" / "again.dcm")
    with pytest.raises(ScanError, match="its own SOPInstanceUID"):
        open_series(find_scans(tmp_path / "in")[0])


def test_phases_at_one_place_are_each_written(tmp_path):
    for phase in (0, 1):
        for k in range(3):
            ds = ct_slice(
                np.full((4, 6), 10 * k + phase), POSITIONS[k], InstanceNumber=3 * phase + k, StudyInstanceUID="1.9"
            )
            save(ds, tmp_path / "in" / f"{phase}{k}.dcm")
    made, _, slices = derive(tmp_path / "in", tmp_path / "w")
    assert "expected one slice at each position but got two at 100.00 mm" in slices.problems[0]
    found = {ds.InstanceNumber: ds.pixel_array[0, 0] for ds in datasets(made["denoised"])}
    assert found == {0: 0, 1: 10, 2: 20, 3: 1, 4: 11, 5: 21}


def test_many_images_at_one_place_are_counted(tmp_path):
    """Regression: ten phases at each of four places were called two."""
    for phase in range(10):
        for k in range(4):
            number = 4 * phase + k
            ds = ct_slice(np.full((4, 6), number), POSITIONS[k], InstanceNumber=number, StudyInstanceUID="1.9")
            save(ds, tmp_path / "in" / f"{number}.dcm")
    _, _, slices = derive(tmp_path / "in", tmp_path / "w")
    assert "expected one slice at each position but got 10 at 100.00 mm" in slices.problems[0]


def dicomdir(folder: Path) -> tuple[Path, np.ndarray]:
    stored = ct_series(folder / "src", POSITIONS[:3])
    fileset = FileSet()
    for path in sorted((folder / "src").iterdir()):
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.StudyInstanceUID, ds.StudyDate, ds.StudyTime, ds.StudyID = "A", "1.9", "20200101", "01", "1"
        ds.InstanceNumber = int(path.stem) + 1
        fileset.add(ds)
    fileset.write(folder / "medium")
    return folder / "medium" / "DICOMDIR", stored


def test_dicomdir_names_the_series(tmp_path):
    path, stored = dicomdir(tmp_path)
    save(ct_slice(np.eye(4), POSITIONS[0], uid="1.5"), path.parent / "not_named.dcm")
    (source,) = find_scans(path)
    assert len(source.files) == 3
    np.testing.assert_array_equal(read_scan(path).hu, stored.transpose(2, 1, 0) - 1024)
    renamed = path.rename(path.with_name("INDEX"))
    assert len(find_scans(renamed)[0].files) == 3


def test_dicomdir_in_lower_case_files(tmp_path):
    path, _ = dicomdir(tmp_path)
    for folder in sorted((p for p in path.parent.rglob("*") if p.is_dir()), reverse=True):
        for file in folder.iterdir():
            file.rename(file.with_name(file.name.lower()))
    for folder in [p for p in path.parent.iterdir() if p.is_dir()]:
        folder.rename(folder.with_name(folder.name.lower()))
    assert len(find_scans(path)[0].files) == 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom names what it doubts
def test_dicomdir_with_files_missing_or_elsewhere(tmp_path):
    path, _ = dicomdir(tmp_path)
    image = next(p for p in path.parent.rglob("*") if p.is_file() and p != path)
    image.rename(tmp_path / "gone")
    with pytest.raises(ScanError, match="1 are missing, the first is"):
        find_scans(path)
    ds = pydicom.dcmread(path)
    record = next(r for r in ds.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE")
    record.ReferencedFileID = ["..", "gone"]
    ds.save_as(path)
    with pytest.raises(ScanError, match="files below its folder"):
        find_scans(path)


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_zip(tmp_path):
    stored = ct_series(tmp_path / "in" / "deep", POSITIONS)
    path = zipped(tmp_path / "a.zip", tmp_path / "in")
    np.testing.assert_array_equal(read_scan(path).hu, stored.transpose(2, 1, 0) - 1024)
    assert read_scan(path).source == path


def hostile(path: Path, kind: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        names = {"up": "../out.dcm", "root": "/out.dcm", "drive": "C:/out.dcm", "backslash": "..\\out.dcm"}
        member = zipfile.ZipInfo(names.get(kind, "a/out.dcm"))
        member.compress_type = zipfile.ZIP_DEFLATED
        if kind == "link":
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, b"\0" * (50 << 20) if kind == "bomb" else b"x")
        if kind == "twice":
            archive.writestr("a/out.dcm", b"y")
    if kind == "password":
        data = bytearray(path.read_bytes())
        data[6] |= 1
        data[data.rindex(b"PK\1\2") + 8] |= 1
        path.write_bytes(data)
    if kind == "bomb":  # zlib cannot pack as well as the worst file claims: the claim alone is what is checked
        data = bytearray(path.read_bytes())
        place = data.rindex(b"PK\1\2") + 24
        data[place : place + 4] = (2**31).to_bytes(4, "little")
        path.write_bytes(data)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    if kind == "crc":
        data = bytearray(path.read_bytes())
        data[data.rindex(b"PK\1\2") + 16] ^= 1
        path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("up", "names below one folder"), ("root", "names below one folder"), ("drive", "names below one folder"),
        ("backslash", "names below one folder"), ("link", "is a link or a device"), ("bomb", "grow beyond reason"),
        ("twice", "twice"), ("password", "encrypted"), ("cut", "complete zip archive"), ("crc", "complete zip archive"),
    ],
)  # fmt: skip
def test_hostile_archives_are_refused_and_reach_nothing(tmp_path, kind, words):
    path = hostile(tmp_path / "a.zip", kind)
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ScanError, match=words):
        unzip(path, target)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(target)) == ["a.zip"]


def test_many_members_that_are_a_bomb_together_only(tmp_path, monkeypatch):
    """No disk is filled first: an archive of 2 MB held 2 GB of files, each packed as well as a phantom is."""
    monkeypatch.setattr("ct_cncl.transforms.series.archive_file._SPARE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"{number}.dcm", bytes(1 << 20))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ScanError, match="would grow to 8 MiB; unpack it yourself"):
        unzip(tmp_path / "a.zip", target)
    assert list(target.iterdir()) == []


def test_a_small_member_that_packs_better_than_deflate_can_is_a_bomb(tmp_path):
    """bzip2 packs zeros 20000 to 1; the archive as a whole stays below its bound."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.dcm", bytes(4 << 20))
    with pytest.raises(ScanError, match="'a.dcm' would grow beyond reason"):
        unzip(tmp_path / "a.zip", tmp_path)


def test_a_member_larger_than_it_says_writes_no_more_than_it_says(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(8 << 20))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2") + 24
    data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ScanError, match="complete zip archive"):
        unzip(path, target)
    assert sum(file.stat().st_size for file in target.rglob("*.dcm")) <= 10


def test_no_room_for_an_archive(tmp_path, monkeypatch):
    ct_series(tmp_path / "in", POSITIONS)
    path = zipped(tmp_path / "a.zip", tmp_path / "in")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100 << 10}))
    with pytest.raises(ScanError, match="MiB of free space"):
        unzip(path, tmp_path)


@pytest.mark.parametrize("case", ["missing", "gap", "variable"])
def test_gaps_are_reported_and_every_slice_is_written(tmp_path, case):
    places = {"missing": [0, 2.5, 7.5, 10], "gap": [0, 1, 2, 9], "variable": [0, 4.22, 8.44, 9.58]}[case]
    stored = ct_series(tmp_path / "in", [(0, 0, z) for z in places], StudyInstanceUID="1.9")
    made, _, slices = derive(tmp_path / "in", tmp_path / "w")
    assert len(slices.problems) == 1
    found = sorted(datasets(made["denoised"]), key=lambda ds: float(ds.ImagePositionPatient[2]))
    np.testing.assert_array_equal([ds.pixel_array for ds in found], stored)


def test_neighbours_follow_places_not_files(tmp_path):
    """Frames in the file: 2, 0, 1 from below; the neighbour towards the head of the lowest is the next higher one."""
    from enhanced_files import valid_enhanced

    from ct_cncl.transforms.series.slices import open_slices

    ds = valid_enhanced(np.arange(3)[:, None, None] * np.ones((3, 4, 4)), [POSITIONS[k] for k in (2, 0, 1)])
    save(ds, tmp_path / "in" / "a.dcm")
    slices = open_slices(find_scans(tmp_path / "in")[0], tmp_path)
    assert [slices.read(k).hu[0, 0] + 1024 for k in range(3)] == [0, 1, 2]
    assert [slices.neighbour(k, 1) for k in (1, 2, 0)] == [2, 0, 0]
    assert [slices.neighbour(k, -1) for k in (1, 2, 0)] == [1, 1, 2]


def test_several_frames_that_say_nothing_of_themselves(tmp_path):
    ds = ct_slice(np.eye(4), POSITIONS[0])
    ds.NumberOfFrames = 2
    save(ds, tmp_path / "a.dcm")
    with pytest.raises(ScanError, match="without per-frame functional groups"):
        open_series(find_scans(tmp_path)[0])


def test_deflated_multiframe_goes_through_scratch(tmp_path):
    from enhanced_files import valid_enhanced
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    stored = np.random.default_rng(0).integers(0, 4000, (3, 5, 4))
    ds: Dataset = valid_enhanced(stored, POSITIONS[:3])
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    made, _, _ = derive(tmp_path / "in", tmp_path / "w")
    assert [path.name for path in (tmp_path / "w" / "scratch").iterdir()] == ["inflated0"]
    np.testing.assert_array_equal(datasets(made["denoised"])[0].pixel_array, stored)
