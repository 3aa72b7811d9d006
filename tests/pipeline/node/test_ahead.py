"""Slices go through the network while the rest arrives: the job's results are the same, bit for bit, and nothing is computed twice."""

import json
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import torch
from dicom_archive import write_series
from tiny_node import config, files_of
from tiny_weights import tiny_cncl

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.node.ahead import folder_of
from ct_cncl.pipeline.node.facts import read_object
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.worker import Worker

SLICES = 7


@pytest.fixture
def set_up(tmp_path):
    """A worker whose queue holds a series that is still arriving, the series' files, and the weights."""
    weights, _ = tiny_cncl(tmp_path / "run")
    path = config(tmp_path, None, weights, rules=[{"name": "all", "weights": str(weights), "shadow": True}])
    worker = Worker(read_settings(path), "worker1")
    worker.spool.prepare()
    write_series(tmp_path / "in", 1, slices=SLICES)
    before = torch.get_num_threads()
    yield SimpleNamespace(worker=worker, files=files_of(tmp_path / "in"), weights=weights, folder=tmp_path)
    torch.set_num_threads(before)


def bring(worker, files):
    for file in files:
        identity, facts = read_object(file)
        place = worker.spool.place_of(identity.series, identity.uid, "d")
        target = worker.spool.folder / place
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
        worker.jobs.add_object(identity, facts, digest="d", path=place, size=1, sender="SCANNER", address="127.0.0.1")


def work(worker):
    """Complete the job and make it; by UID, the pixels."""
    rule = worker.settings.rules[0]
    worker.jobs.move(1, "received", "complete", action=rule.action.plain(), rule=rule.name)
    worker.one(worker.jobs.claim("worker1"))
    job = worker.jobs.get(1)
    assert (job.state, job.error) == ("done", "")
    found = {entry["uid"]: worker.spool.folder / entry["path"] for entry in job.outcome["files"]}
    return {uid: pydicom.dcmread(path).pixel_array for uid, path in found.items()}


def test_results_are_those_of_denoise_bit_for_bit(set_up):
    denoise_scans(set_up.folder / "in", set_up.folder / "out", weights=set_up.weights, progress=False)
    expected = {
        str(dataset.SOPInstanceUID): dataset.pixel_array
        for dataset in map(pydicom.dcmread, files_of(set_up.folder / "out"))
    }
    bring(set_up.worker, set_up.files[:4])
    while set_up.worker._ahead():
        pass
    bring(set_up.worker, set_up.files[4:])
    set_up.worker._ahead()
    made = folder_of(set_up.worker.spool, 1)
    assert 4 <= len(list(made.iterdir())) < SLICES + 1
    got = work(set_up.worker)
    assert set(got) == set(expected)
    for uid, pixels in expected.items():
        np.testing.assert_array_equal(got[uid], pixels)
    assert not made.parent.exists()  # an empty folder of it neither


def test_nothing_is_computed_twice(set_up):
    """A network that was changed after the slices came: what was made before is what the results hold."""
    bring(set_up.worker, set_up.files[:6])
    while set_up.worker._ahead():
        pass
    network = set_up.worker.opened(set_up.worker.jobs.get(1)).network
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    work(set_up.worker)
    assert sum(calls) == 0


def test_other_weights_find_nothing(set_up):
    bring(set_up.worker, set_up.files[:6])
    while set_up.worker._ahead():
        pass
    bring(set_up.worker, set_up.files[6:])
    other, _ = tiny_cncl(set_up.folder / "other", seed=1)
    denoise_scans(set_up.folder / "in", set_up.folder / "out", weights=other, progress=False)
    expected = {
        str(dataset.SOPInstanceUID): dataset.pixel_array
        for dataset in map(pydicom.dcmread, files_of(set_up.folder / "out"))
    }
    action = set_up.worker.settings.rules[0].action.plain() | {"weights": str(other)}
    set_up.worker.jobs.move(1, "received", "complete", action=action)
    set_up.worker.one(set_up.worker.jobs.claim("worker1"))
    for entry in json.loads(set_up.worker.jobs.database.one("SELECT outcome FROM jobs"))["files"]:
        np.testing.assert_array_equal(
            pydicom.dcmread(set_up.worker.spool.folder / entry["path"]).pixel_array, expected[entry["uid"]]
        )


def test_what_no_rule_wants_is_left_alone(set_up):
    write_series(set_up.folder / "more", 3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    bring(set_up.worker, files_of(set_up.folder / "more"))
    assert set_up.worker._ahead() is False
    assert not folder_of(set_up.worker.spool, 1).exists()


def test_a_series_that_cannot_be_made_is_tried_once_and_holds_up_no_other(set_up):
    """Weights that are none: the job will say so; the next series goes on, and nothing is opened again and again."""
    bad = set_up.folder / "bad.ts"
    bad.write_bytes(b"no weights")
    rules = [
        {"name": "bad", "match": {"kernel": "B70f"}, "weights": str(bad), "shadow": True},
        {"name": "all", "weights": str(set_up.weights), "shadow": True},
    ]
    worker = Worker(read_settings(config(set_up.folder, None, "", rules=rules)), "worker1")
    write_series(set_up.folder / "bad", 4, slices=SLICES, ConvolutionKernel="B70f")
    bring(worker, files_of(set_up.folder / "bad"))
    bring(worker, set_up.files)
    opened, asked = worker.opened, []
    worker.opened = lambda job: asked.append(job.id) or opened(job)
    while worker._ahead():
        pass
    assert worker._ahead() is False
    assert asked.count(1) == 1
    assert not folder_of(worker.spool, 1).exists()
    assert len(list(folder_of(worker.spool, 2).iterdir())) >= 4
