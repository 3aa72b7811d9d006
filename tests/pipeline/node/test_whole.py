"""A whole node: series in, series out, and what happens with late, repeated, returned and other objects."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_node import PATIENCE_S, Destination, config, files_of, running, send, until
from tiny_weights import Add, scripted, tiny_cncl

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

RULES = [
    {"name": "kept", "match": {"kernel": "SHADOW"}, "shadow": True, "strength": 0.5},
    {"name": "sent", "match": {"modality": "CT"}, "send": ["pacs"], "save": ["noise"]},
]


@pytest.fixture(scope="module")
def there():
    with Destination() as found:
        yield found


@pytest.fixture(scope="module")
def node(tmp_path_factory, there):
    folder = tmp_path_factory.mktemp("node")
    weights, _ = tiny_cncl(folder / "run")
    rules = [rule | {"weights": str(weights)} for rule in RULES]
    with running(config(folder, there, weights, rules=rules)) as found:
        yield found


def job_of(node, series, edition=1):
    rows = node.rows(
        "SELECT id, state, warnings, outcome, error FROM jobs WHERE series = ? AND edition = ?", series, edition
    )
    return rows[0] if rows else None


def finished(node, series, edition=1):
    return until(lambda: (job_of(node, series, edition) or (0, ""))[1] in ("done", "failed"))


def page(node, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{node.page}{path}", timeout=PATIENCE_S) as answer:
        return answer.read().decode()


def test_a_series_goes_through_as_denoise_makes_it(node, there, tmp_path):
    from ct_cncl.pipeline.inference.api import denoise_scans

    write_series(tmp_path / "in", 1)
    assert send(files_of(tmp_path / "in"), node.port) == [0, 0, 0]
    assert finished(node, "1.2.826.1")
    number, state, _, outcome, error = job_of(node, "1.2.826.1")
    assert (state, error) == ("done", None)
    denoise_scans(
        tmp_path / "in", tmp_path / "out", weights=node.path.parent / "run/best.pt", save=("noise",), progress=False
    )
    expected = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, files_of(tmp_path / "out"))}
    assert len(expected) == 6
    for uid, dataset in expected.items():
        assert there.times[uid] == 1
        got = there.datasets[uid][0]
        assert got.StudyInstanceUID == "1.2.3.0"
        assert got.SeriesInstanceUID == dataset.SeriesInstanceUID
        np.testing.assert_array_equal(got.pixel_array, dataset.pixel_array)
    assert {entry["kind"] for entry in json.loads(outcome)["files"]} == {"denoised", "noise"}
    pictures = node.spool / f"results/{number:08d}/pictures"
    assert sorted(path.name for path in pictures.iterdir()) == ["input.png", "removed.png", "result.png"]


def test_sent_again_nothing_new_is_made(node, there, tmp_path):
    write_series(tmp_path / "in", 1)
    before, jobs = dict(there.times), len(node.states())
    for _ in range(2):
        assert send(files_of(tmp_path / "in"), node.port) == [0, 0, 0]
    assert len(node.states()) == jobs
    assert there.times == before


def test_results_that_come_back_are_stored_and_ignored(node, there, tmp_path):
    results = [copies[0] for copies in there.datasets.values()]
    assert len(results) == 6
    for _ in range(3):
        assert send(results, node.port) == [0] * 6
    back = {str(dataset.SeriesInstanceUID) for dataset in results}
    for series in back:
        assert finished(node, series)
    rows = node.rows("SELECT series, state, action FROM jobs WHERE series IN (?, ?)", *back)
    assert len(rows) == 2
    reasons = []
    for _, state, action in rows:
        assert (state, json.loads(action)["do"]) == ("done", "ignore")
        reasons += json.loads(action)["reasons"]
    for kind in ("denoised", "noise"):
        assert f"sent: no, it is for original, and this is own (result of ct-cncl ({kind}))" in reasons
    assert len(there.times) == 6


def test_late_slices_are_a_new_edition_with_uids_of_its_own(node, there, tmp_path):
    hu = write_series(tmp_path / "in", 3, slices=6)
    files = files_of(tmp_path / "in")
    send(files[:4], node.port)
    assert finished(node, "1.2.826.3")
    send(files[4:], node.port)
    assert finished(node, "1.2.826.3", 2)
    _, state, warnings, outcome, error = job_of(node, "1.2.826.3", 2)
    assert (state, error) == ("done", None)
    assert "slices came late: this result replaces edition 1" in json.loads(warnings)
    first = {entry["uid"] for entry in json.loads(job_of(node, "1.2.826.3")[3])["files"]}
    second = {entry["uid"] for entry in json.loads(outcome)["files"]}
    assert (len(first), len(second), first & second) == (8, 12, set())
    series = [entry["series"] for entry in json.loads(outcome)["files"] if entry["kind"] == "denoised"]
    assert len(there.series()[series[0]]) == len(hu)


def test_shadow_mode_makes_and_keeps_and_sends_nothing(node, there, tmp_path):
    write_series(tmp_path / "in", 5, ConvolutionKernel="SHADOW")
    before = len(there.times)
    send(files_of(tmp_path / "in"), node.port)
    assert finished(node, "1.2.826.5")
    number, state = job_of(node, "1.2.826.5")[:2]
    assert state == "done"
    assert len(files_of(node.spool / f"results/{number:08d}")) == 3
    assert len(there.times) == before
    assert "kept (shadow)" in page(node, f"/jobs/{number}")


def test_a_series_that_cannot_be_denoised_fails_and_waits_for_a_person(node, tmp_path, command):
    write_series(tmp_path / "in", 7, RescaleType="mgml")
    assert send(files_of(tmp_path / "in"), node.port) == [0, 0, 0]
    assert finished(node, "1.2.826.7")
    number, state, _, _, error = job_of(node, "1.2.826.7")
    assert state == "failed"
    assert "HU" in error
    code, out, _ = command("node", "queue", "--config", node.path, "--state", "failed")
    assert code == 0
    assert str(number) in out
    code, out, _ = command("node", "retry", number, "--config", node.path)
    assert (code, out.strip()) == (0, f"job {number} is complete now")
    assert until(lambda: job_of(node, "1.2.826.7")[1] == "failed")
    code, out, _ = command("node", "drop", number, "--config", node.path)
    assert (code, out.strip()) == (0, f"job {number} is dropped")
    assert job_of(node, "1.2.826.7") is None
    assert node.rows("SELECT COUNT(*) FROM objects WHERE series = '1.2.826.7'") == [(0,)]
    code, _, err = command("node", "retry", number, "--config", node.path)
    assert code == 1
    assert f"there is no job {number}" in err


def test_a_worker_that_is_killed_is_replaced_and_its_job_made(node, there, tmp_path):
    write_series(tmp_path / "in", 9)

    def children():
        tasks = Path(f"/proc/{node.process.pid}/task").glob("*/children")
        return [int(text) for task in tasks for text in task.read_text().split()]

    assert until(lambda: len(children()) == 1)
    os.kill(children()[0], signal.SIGKILL)
    assert until(lambda: "worker1 ended (-9)" in node.log.read_text())
    send(files_of(tmp_path / "in"), node.port)
    assert finished(node, "1.2.826.9")
    assert job_of(node, "1.2.826.9")[1] == "done"
    assert "ct_cncl_worker_deaths_total 1" in page(node, "/metrics")


def test_logs_audit_and_page_say_nothing_of_patients(node):
    texts = [node.log.read_text(), (node.spool / "audit.jsonl").read_text(), page(node, "/"), page(node, "/jobs/1")]
    for secret in ("Zaphod", "Beeblebrox", "Patient0", "Patient1"):
        assert not any(secret in text for text in texts)
    assert [
        line for line in node.log.read_text().splitlines() if not line.startswith("20")
    ] == []  # every line is the log's own
    events = [line["event"] for line in node.audit()]
    assert {"started", "received", "denoised", "delivered", "failed", "retried", "dropped"} <= set(events)
    delivered = next(line for line in node.audit() if line["event"] == "delivered")
    assert (delivered["destination"], delivered["objects"], delivered["series"]) == ("pacs", 6, "1.2.826.1")


def test_health_and_metrics(node):
    with urllib.request.urlopen(f"http://127.0.0.1:{node.page}/health", timeout=PATIENCE_S) as answer:
        assert json.load(answer) == {"ok": True, "problems": []}
    lines = page(node, "/metrics").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['ct_cncl_jobs{state="failed"}'] == "0"
    assert int(values['ct_cncl_sent_objects_total{destination="pacs"}']) == sum(
        count for (count,) in node.rows("SELECT COUNT(*) FROM sent")
    )
    assert values['ct_cncl_objects_total{answer="again"}'] == "18"


def test_what_one_run_of_the_program_leaves_the_next_finishes(tmp_path, there):
    weights = scripted(Add(25.0), tmp_path / "add.ts")
    path = config(tmp_path / "n", there, weights, workers=0)
    with running(path) as first:
        for number in (21, 22):
            write_series(tmp_path / str(number), number)
            assert send(files_of(tmp_path / str(number)), first.port) == [0, 0, 0]
        assert until(lambda: first.states() == ["complete", "complete"])
    path.write_text(path.read_text().replace("workers: 0", "workers: 1"))
    with running(path) as second:
        assert until(lambda: second.states() == ["done", "done"])
    assert [line["event"] for line in second.audit()].count("stopped") == 2
