"""What is not read of a folder is named: links that lead nowhere, what they hide, files of other kinds."""

import gzip
import logging
import os
import shutil
import unicodedata
import zipfile

import numpy as np
import pytest
from derive_files import derive
from series_files import POSITIONS, ct_series, ct_slice, nifti, refused, save

from ct_cncl.transforms.series import ScanError, find_scans, read_scan
from ct_cncl.transforms.series.find import choose, search
from ct_cncl.transforms.series.listing import DANGLING, HIDDEN, LOOPS, SPECIAL


def series(folder, count=3, **changes):
    return ct_series(folder, POSITIONS[:count], StudyInstanceUID="1.9", **changes)


def test_links_that_lead_nowhere_are_named(tmp_path, caplog):
    series(tmp_path / "in")
    for name in ("0005.dcm", "0006.dcm"):
        (tmp_path / "in" / name).symlink_to("../.git/annex/objects/none")
    found = search(tmp_path / "in")
    assert [path.name for path in found.unread] == ["0005.dcm", "0006.dcm"]
    assert found.others == f"2 x {DANGLING} (0005.dcm, ...)"
    with caplog.at_level(logging.WARNING):
        assert len(find_scans(tmp_path / "in")) == 1
    assert "passed over 2 x links that lead nowhere" in caplog.text
    for path in (tmp_path / "in").glob("00?.dcm"):
        path.unlink()
    refused(tmp_path / "in", "only 2 x links that lead nowhere")
    refused(tmp_path / "in" / "0005.dcm", "a link that leads nowhere")


def test_folders_behind_links_are_searched_once(tmp_path):
    stored = series(tmp_path / "real" / "pat1")
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).symlink_to("../real/pat1")
    (tmp_path / "in" / "up").symlink_to("../in")
    found = search(tmp_path / "in")
    (source,) = found.scans
    assert (source.relative, len(source.files)) == ("a", 3)
    assert [path.name for path in found.passed_over[LOOPS]] == ["up"]
    np.testing.assert_array_equal(read_scan(source).hu, stored.transpose(2, 1, 0) - 1024)


def test_a_link_beside_its_folder_changes_no_name(tmp_path):
    series(tmp_path / "in" / "z" / "patient")
    (tmp_path / "in" / "a").symlink_to("z/patient")
    assert [source.relative for source in find_scans(tmp_path / "in")] == ["z/patient"]


def test_links_to_files_and_a_linked_folder_itself(tmp_path):
    stored = series(tmp_path / "store")
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "store").iterdir():
        (tmp_path / "in" / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to("in")
    for folder in ("in", "link"):
        np.testing.assert_array_equal(read_scan(tmp_path / folder).hu, stored.transpose(2, 1, 0) - 1024)


def test_hidden_slices_and_pipes_are_named(tmp_path):
    series(tmp_path / "in")
    shutil.copy(tmp_path / "in" / "000.dcm", tmp_path / "in" / ".004.dcm")
    (tmp_path / "in" / "._000.dcm").write_bytes(b"Mac OS X" + bytes(200))
    os.mkfifo(tmp_path / "in" / "005.dcm")
    found = search(tmp_path / "in")
    assert {kind: [path.name for path in paths] for kind, paths in found.passed_over.items()} == {
        HIDDEN: [".004.dcm"],
        SPECIAL: ["005.dcm"],
    }


def test_scans_in_hidden_folders_are_named(tmp_path):
    """But those of git-annex, which links name, and our own work."""
    series(tmp_path / "in")
    for name in (".old/deep", ".git/annex", ".unfinished/1"):
        series(tmp_path / "in" / name, count=1)
    (tmp_path / "in" / ".old" / "notes.txt").write_text("no scan")
    os.mkfifo(tmp_path / "in" / ".old" / "pipe")
    found = search(tmp_path / "in")
    assert [str(path.relative_to(tmp_path)) for path in found.unread] == ["in/.old/deep/000.dcm"]
    assert len(found.scans[0].files) == 3


def test_data_sets_without_their_file_header_are_named(tmp_path):
    series(tmp_path / "in")
    content = (tmp_path / "in" / "000.dcm").read_bytes()
    (tmp_path / "in" / "IM7").write_bytes(content[content.index(b"\x08\0\x08\0CS") :])
    found = search(tmp_path / "in")
    assert found.others == "1 x DICOM without its file header (IM7)"
    assert found.unread


def other(folder, kind):
    folder.mkdir()
    if kind == "mhd":
        (folder / "ct.mhd").write_text("ElementDataFile = ct.raw\n")
        (folder / "ct.raw").write_bytes(bytes(8))
    elif kind == "nhdr":
        (folder / "ct.nhdr").write_text("NRRD0004\ndata file: ct.raw.gz\n\n")
        (folder / "ct.raw.gz").write_bytes(gzip.compress(bytes(8)))
    elif kind == "pair":
        (folder / "ct.hdr").write_bytes(bytes(352))
        (folder / "ct.img").write_bytes(bytes(8))
    elif kind == "zip":
        with zipfile.ZipFile(folder / "ct.zip", "w") as archive:
            archive.writestr("1.dcm", b"x")
    else:
        (folder / f"ct{kind}").write_bytes(b"x")
    return folder


KINDS = {
    "mhd": ("2 x header/image pairs", ".mhd to .mha"),
    "nhdr": ("2 x header/image pairs", ".nhdr to .nrrd"),
    "pair": ("2 x header/image pairs", ".hdr and .img to .nii"),
    "zip": ("1 x archives (ct.zip)", "name one .zip archive itself"),
    ".tar.xz": ("1 x archives", "unpack archives"),
    ".nii.bz2": ("1 x compressed files (ct.nii.bz2)", "unpack compressed files"),
    ".dcm.gz": ("1 x compressed files", "unpack compressed files"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_kind_says_which_and_what_to_do(tmp_path, kind):
    folder = other(tmp_path / "in", kind)
    for text in KINDS[kind]:
        refused(folder, text)
    with pytest.raises(ScanError) as caught:
        find_scans(folder)
    assert "files of other kinds" not in str(caught.value)
    for path in folder.glob("*"):
        with pytest.raises(ScanError, match="pair|archive|compressed"):
            find_scans(path)


@pytest.mark.parametrize("suffix", [".img", ".nii", ".hdr", ".mha", ".tif", ".gz", ".npy", ""])
def test_dicom_counts_by_what_it_holds_not_by_its_name(tmp_path, suffix):
    path = save(
        ct_slice(np.arange(24).reshape(4, 6), POSITIONS[0], StudyInstanceUID="1.9"), tmp_path / f"in/IM1{suffix}"
    )
    for named in (path, path.parent):
        (source,) = find_scans(named)
        assert source.kind == "dicom"
    made, _, _ = derive(path.parent, tmp_path / "w")
    assert len(list(made["denoised"].iterdir())) == 1


def test_a_nifti_file_stays_one(tmp_path):
    path = nifti(tmp_path / "a.nii", np.zeros((3, 3, 2), np.int16), np.eye(4))
    assert find_scans(path)[0].kind == "nifti"


def test_a_series_is_chosen_by_its_name_in_either_spelling(tmp_path):
    folder = tmp_path / unicodedata.normalize("NFD", "Müller")
    series(folder)
    (source,) = find_scans(folder)
    assert choose([source], [unicodedata.normalize("NFC", f"{folder.name}_series002")]) == [source]
