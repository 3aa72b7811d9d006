"""With a real Orthanc: study in, series back in the same study, over C-STORE and STOW-RS, with storage commitment both ways."""

import io
import json
import shutil
import subprocess
import urllib.request

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from orthanc import DICOMWEB, ORTHANC, Orthanc
from PIL import Image
from queued_job import QueuedJob
from tiny_node import PATIENCE_S, config, files_of, free_port, running, send, until
from tiny_weights import Add, scripted

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")
if ORTHANC is None:
    pytest.skip("needs Debian's package orthanc", allow_module_level=True)


class Hospital:
    def __init__(self, orthanc, node):
        self.orthanc, self.node = orthanc, node

    def done(self, count):
        return until(lambda: self.node.states().count("done") >= count)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Orthanc routes stable series to a node, which sends its results back and has them committed."""
    folder, port = tmp_path_factory.mktemp("hospital"), free_port()
    orthanc = Orthanc(folder / "orthanc", port)
    here = {"aet": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom}
    weights = scripted(Add(25.0), folder / "add.ts")
    path = config(
        folder / "node", None, weights, port=port,
        senders=[{"aet": "ORTHANC", "commitment": here, "count": here}],
        destinations={"pacs": here | {"commit": True}},
        rules=[{"name": "all", "weights": str(weights), "send": "pacs"}],
        complete={"quiet_s": 1, "open_s": 30, "count_s": 60},
    )  # fmt: skip
    try:
        with running(path) as node:
            yield Hospital(orthanc, node)
    finally:
        orthanc.stop()


def test_study_in_series_back_in_the_same_study(hospital, tmp_path):
    hu = write_series(tmp_path / "in", 1, slices=4)
    if shutil.which("storescu"):
        command = [
            "storescu",
            "-aet",
            "SCANNER",
            "-aec",
            "ORTHANC",
            "127.0.0.1",
            str(hospital.orthanc.dicom),
            *map(str, files_of(tmp_path / "in")),
        ]
        assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 0
    else:
        assert send(files_of(tmp_path / "in"), hospital.orthanc.dicom, called="ORTHANC") == [0] * 4
    assert hospital.done(1), hospital.node.log.read_text()
    studies = hospital.orthanc.get("/studies?expand")
    assert [len(study["Series"]) for study in studies] == [2]
    result = next(series for uid, series in hospital.orthanc.series().items() if uid != "1.2.826.1")
    instances = hospital.orthanc.get(f"/series/{result}/instances")
    assert len(instances) == 4
    for instance in instances:
        content = hospital.orthanc.get(f"/instances/{instance['ID']}/file", plain=True)
        dataset = pydicom.dcmread(io.BytesIO(content))
        np.testing.assert_array_equal(dataset.pixel_array, hu[dataset.InstanceNumber - 1] + 25)
        preview = np.asarray(
            Image.open(io.BytesIO(hospital.orthanc.get(f"/instances/{instance['ID']}/preview", plain=True)))
        )
        assert preview.shape == hu[0].shape
        assert preview.std() > 10  # rendered, not black


def test_results_were_committed_and_said_so(hospital):
    assert hospital.node.rows("SELECT state FROM deliveries") == [("committed",)]
    assert "committed" in [line["event"] for line in hospital.node.audit()]


def test_sent_back_three_times_no_new_series(hospital):
    before = set(hospital.orthanc.series())
    study = hospital.orthanc.get("/studies")[0]
    for _ in range(3):
        hospital.orthanc.post("/modalities/ct-cncl/store", {"Resources": [study], "Synchronous": True})
    assert hospital.done(2)  # the results, which are known for what they are
    actions = [json.loads(row[0])["do"] for row in hospital.node.rows("SELECT action FROM jobs ORDER BY id")]
    assert actions == ["denoise", "ignore"]
    assert set(hospital.orthanc.series()) == before


def test_orthanc_asks_us_for_commitment(hospital):
    instances = [row[0] for row in hospital.node.rows("SELECT uid FROM objects WHERE series = '1.2.826.1'")]
    wanted = [{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": uid} for uid in instances]
    for more, status in (
        ([], "Success"),
        ([{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2.3.4.5"}], "Failure"),
    ):
        asked = hospital.orthanc.post("/modalities/ct-cncl/storage-commitment", {"DicomInstances": wanted + more})
        report = f"/storage-commitment/{asked['ID']}"
        assert until(lambda place=report: hospital.orthanc.get(place)["Status"] != "Pending")
        found = hospital.orthanc.get(report)
        assert found["Status"] == status
        assert len(found["Success"]) == 4
        assert [one["SOPInstanceUID"] for one in found["Failures"]] == [one["SOPInstanceUID"] for one in more]


def test_the_count_is_asked_for(hospital, tmp_path):
    """Orthanc knows of five slices, and three come here: the node waits for the others, and then goes on at once."""
    write_series(tmp_path, 5, slices=5, Modality="CT")
    uploaded = [_upload(hospital.orthanc, file) for file in files_of(tmp_path)]
    hospital.orthanc.post("/modalities/ct-cncl/store", {"Resources": uploaded[:3], "Synchronous": True})
    assert until(lambda: hospital.node.rows("SELECT state FROM jobs WHERE series = '1.2.826.5'") == [("done",)])
    number, warnings = hospital.node.rows("SELECT id, warnings FROM jobs WHERE series = '1.2.826.5'")[0]
    assert json.loads(warnings) == []
    assert hospital.node.rows("SELECT COUNT(*) FROM members WHERE job = ?", number) == [(5,)]


def _upload(orthanc, file):
    request = urllib.request.Request(f"http://127.0.0.1:{orthanc.http}/instances", file.read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())["ID"]


def test_what_came_while_the_node_was_away_goes_with_the_next_series(hospital, tmp_path):
    """Orthanc tries once; the route tries what failed again."""
    hospital.node.stop()
    for number in (11, 12):
        write_series(tmp_path / str(number), number, Modality="CT")
        for file in files_of(tmp_path / str(number)):
            _upload(hospital.orthanc, file)
        if number == 11:
            assert until(lambda: "Failure" in [job["State"] for job in hospital.orthanc.get("/jobs?expand")])
            hospital.node.start()
    query = "SELECT series FROM jobs WHERE state = 'done' AND series IN ('1.2.826.11', '1.2.826.12') ORDER BY series"
    assert until(lambda: hospital.node.rows(query) == [("1.2.826.11",), ("1.2.826.12",)]), hospital.node.log.read_text()


@pytest.mark.skipif(DICOMWEB is None, reason="needs Debian's package orthanc-dicomweb")
def test_stow_into_orthanc(hospital, tmp_path):
    job = QueuedJob(tmp_path, {"url": f"http://127.0.0.1:{hospital.orthanc.http}/dicom-web"}, number=9)
    job.look()
    assert job.state == "done"
    instances = hospital.orthanc.get(f"/series/{hospital.orthanc.series()['1.2.826.9']}/instances")
    assert len(instances) == 3
    for instance in instances:
        dataset = pydicom.dcmread(io.BytesIO(hospital.orthanc.get(f"/instances/{instance['ID']}/file", plain=True)))
        np.testing.assert_array_equal(dataset.pixel_array, job.hu[dataset.InstanceNumber - 1])
