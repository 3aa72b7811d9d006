"""Storing: success only for what lies on the disk, once; everything else is refused with the right status."""

import errno
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_node import config

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.incoming import PartFile
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.same_content import same_content
from ct_cncl.pipeline.node.settings import Limits
from ct_cncl.pipeline.node.spool import Spool
from ct_cncl.pipeline.node.store import (
    NO_ROOM,
    NOT_AUTHORIZED,
    OTHER_CONTENT,
    SUCCESS,
    UNREADABLE,
    WRONG_CLASS,
    Storing,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def storing(tmp_path):
    path = config(tmp_path, None, "", rules=[{"do": "refuse", "match": {"study_description": "secret"}}])
    settings = replace(read_settings(path), limits=Limits(free_bytes=0))
    spool = Spool(settings.spool)
    spool.prepare()
    return Storing(settings, spool, Jobs(Database(spool.folder)), Audit(spool.folder))


def limited(storing, **limits):
    storing.settings = replace(storing.settings, limits=replace(storing.settings.limits, **limits))


@pytest.fixture
def slices(tmp_path):
    write_series(tmp_path / "in", 1)
    return sorted((tmp_path / "in").iterdir())


def bring(storing, path, named=None):
    part = PartFile(storing.spool.incoming, storing.settings.limits.object_bytes)
    part.write(path.read_bytes())
    header = pydicom.dcmread(path, stop_before_pixels=True)
    answer, _ = storing.take(part, named or (str(header.SOPInstanceUID), str(header.SOPClassUID)), "CT1", "127.0.0.1")
    return answer.status


def stored(storing):
    return sorted(storing.spool.objects.rglob("*.dcm"))


def test_what_is_answered_with_success_is_on_the_disk(storing, slices):
    assert [bring(storing, path) for path in slices] == [SUCCESS] * 3
    assert sorted(path.read_bytes() for path in stored(storing)) == sorted(path.read_bytes() for path in slices)
    assert not list(storing.spool.incoming.iterdir())
    assert storing.jobs.database.one("SELECT COUNT(*) FROM members WHERE job = 1") == 3


def test_names_in_the_spool_come_from_hashes(storing, slices):
    bring(storing, slices[0])
    name = stored(storing)[0].relative_to(storing.spool.folder).as_posix()
    assert "1.2.826" not in name
    dataset = pydicom.dcmread(slices[0])
    dataset.SeriesInstanceUID = "../../../etc"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.99"
    dataset.save_as(slices[0])
    assert bring(storing, slices[0]) == UNREADABLE
    assert len(stored(storing)) == 1


def test_twice_the_same_is_stored_once(storing, slices):
    assert [bring(storing, slices[0]), bring(storing, slices[0])] == [SUCCESS, SUCCESS]
    assert len(stored(storing)) == 1
    assert storing.counts == {"stored": 1, "again": 1, "refused": 0, "other": 0}
    assert len(storing.jobs.all()) == 1


def test_the_same_in_another_syntax_is_stored_once(storing, slices, tmp_path):
    bring(storing, slices[0])
    dataset = pydicom.dcmread(slices[0])
    dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    dataset.save_as(tmp_path / "rle.dcm")
    other = pydicom.dcmread(slices[0])
    other.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    other.save_as(tmp_path / "implicit.dcm", implicit_vr=True)
    assert [bring(storing, tmp_path / name) for name in ("rle.dcm", "implicit.dcm")] == [SUCCESS, SUCCESS]
    assert len(stored(storing)) == 1


@pytest.mark.parametrize("change", ["pixel", "attribute", "nested"])
def test_other_content_under_one_uid_is_refused_and_logged(storing, slices, change):
    bring(storing, slices[0])
    dataset = pydicom.dcmread(slices[0])
    if change == "pixel":
        pixels = dataset.pixel_array.copy()
        pixels[0, 0] += 1
        dataset.PixelData = pixels.tobytes()
    elif change == "attribute":
        dataset.KVP = 80
    else:
        item = pydicom.Dataset()
        item.CodeValue = "x"
        dataset.ProcedureCodeSequence = [item]
    before = stored(storing)[0].read_bytes()
    dataset.save_as(slices[0])
    assert bring(storing, slices[0]) == OTHER_CONTENT
    assert [path.read_bytes() for path in stored(storing)] == [before]
    line = json.loads((storing.spool.folder / "audit.jsonl").read_text())
    assert (line["event"], line["instance"], line["sender"]) == ("other content refused", "1.2.826.1.1", "CT1")
    assert not list(storing.spool.incoming.iterdir())


def test_unreadable_and_wrongly_named(storing, slices, tmp_path):
    (tmp_path / "half.dcm").write_bytes(slices[0].read_bytes()[:300])
    assert bring(storing, tmp_path / "half.dcm", ("1.2.826.1.1", CT)) == UNREADABLE
    assert bring(storing, slices[0], ("1.2.3", CT)) == WRONG_CLASS
    dataset = pydicom.dcmread(slices[0])
    dataset.Modality = "PT"
    dataset.save_as(slices[0])
    assert bring(storing, slices[0]) == WRONG_CLASS
    dataset.Modality, dataset.StudyDescription = "CT", "secret"
    dataset.save_as(slices[0])
    assert bring(storing, slices[0]) == NOT_AUTHORIZED
    assert stored(storing) == []


def test_limits_are_answered_with_out_of_resources(storing, slices):
    size = slices[0].stat().st_size
    limited(storing, object_bytes=size - 1)
    assert bring(storing, slices[0]) == NO_ROOM
    limited(storing, object_bytes=size + 100, patient_bytes=2 * size)
    assert [bring(storing, path) for path in slices] == [SUCCESS, SUCCESS, NO_ROOM]
    limited(storing, patient_bytes=2**40, series_objects=2)
    assert bring(storing, slices[2]) == NO_ROOM
    limited(storing, series_objects=3, free_bytes=2**62)
    assert bring(storing, slices[2]) == NO_ROOM
    limited(storing, free_bytes=0)
    assert bring(storing, slices[2]) == SUCCESS
    assert not list(storing.spool.incoming.iterdir())
    assert len(stored(storing)) == 3


@pytest.mark.parametrize("where", ["write", "sync", "rename", "commit"])
def test_a_disk_that_fills_at_any_step_is_out_of_resources_and_leaves_nothing(storing, slices, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "write":
            part = PartFile(storing.spool.incoming, 2**30)
            part._stream = SimpleNamespace(write=full, raw=part._stream.raw)
            part.write(b"x" * 1000)
            status = storing.take(part, ("1.2.826.1.1", CT), "CT1", "127.0.0.1")[0].status
        else:
            target = {"sync": "os.fsync", "rename": "pathlib.Path.replace", "commit": ""}[where]
            if target:
                patch.setattr(target, full)
            else:
                patch.setattr(storing.jobs, "add_object", full)
            status = bring(storing, slices[0])
    assert status == NO_ROOM
    assert storing.jobs.all() == []
    assert not list(storing.spool.incoming.iterdir())
    assert bring(storing, slices[0]) == SUCCESS
    assert len(storing.jobs.members(1)) == 1


def test_what_retention_removed_is_stored_again_and_nothing_new_is_made(storing, slices):
    bring(storing, slices[0])
    place = stored(storing)[0]
    with storing.jobs.database.change() as change:
        change.execute("UPDATE objects SET path = NULL")
        change.execute("UPDATE jobs SET state = 'done'")
    place.unlink()
    assert bring(storing, slices[0]) == SUCCESS
    assert len(stored(storing)) == 1
    assert stored(storing) != [place]  # retention may be about to remove what was there
    assert len(storing.jobs.all()) == 1


def test_what_somebody_removed_by_hand_is_stored_again(storing, slices):
    bring(storing, slices[0])
    stored(storing)[0].unlink()
    assert bring(storing, slices[0]) == SUCCESS
    assert len(stored(storing)) == 1
    assert storing.spool.folder / storing.jobs.database.one("SELECT path FROM objects") == stored(storing)[0]


def test_part_files_remember_what_went_wrong(tmp_path):
    part = PartFile(tmp_path, 10)
    assert part.write(b"12345") == 5
    part.write(b"67890")
    assert part.failure == ""
    part.write(b"x")
    assert part.failure == "large"
    assert not part.path.exists()
    part.write(b"x" * 10**6)  # read and forgotten
    part.close()
    gone = PartFile(tmp_path / "no such folder", 10)
    assert gone.failure == "disk"
    gone.write(b"x")
    gone.close()


def test_same_content(tmp_path):
    write_series(tmp_path / "a", 1, slices=1)
    write_series(tmp_path / "b", 1, slices=1)
    write_series(tmp_path / "c", 1, slices=1, PatientID="other")
    first, second, other = (tmp_path / name / "000.dcm" for name in "abc")
    assert same_content(first, second)
    assert not same_content(first, other)
    dataset = pydicom.dcmread(second)
    pixels = np.array(dataset.pixel_array)
    pixels[-1, -1] ^= 1
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(second)
    assert not same_content(first, second)
    second.write_bytes(b"no")
    assert not same_content(first, second)


def test_what_is_no_ct_is_put_away_where_the_configuration_says_so(storing, slices):
    dataset = pydicom.dcmread(slices[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.Modality = "MR"
    dataset.save_as(slices[0])
    assert bring(storing, slices[0]) == SUCCESS
    kept = list(storing.spool.others.rglob("*.dcm"))
    assert [path.read_bytes() for path in kept] == [slices[0].read_bytes()]
    assert (storing.jobs.all(), storing.counts["other"]) == ([], 1)
