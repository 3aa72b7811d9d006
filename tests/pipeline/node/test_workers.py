"""A worker whose job never ends is ended itself."""

import subprocess
import sys
from dataclasses import replace

import pytest
from queued_job import QueuedJob

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node import worker
from ct_cncl.pipeline.node.workers import Workers


def test_a_worker_whose_job_takes_too_long_is_ended_and_the_job_given_back(tmp_path, monkeypatch):
    one = QueuedJob(tmp_path, {"aet": "PACS", "host": "127.0.0.1", "port": 104})
    with one.jobs.database.change() as change:
        change.execute("UPDATE jobs SET state = 'denoising', claim = 'worker1', tries = 1, changed = changed - 100")
    settings = one.sending.settings
    workers = Workers(replace(settings, limits=replace(settings.limits, job_s=200.0)), one.jobs)
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **options: popen([sys.executable, "-c", "input()"], stdin=options["stdin"])
    )
    workers.look()
    workers.look()
    assert (workers.alive, workers.deaths, one.state) == (1, 0, "denoising")
    workers.settings = replace(settings, limits=replace(settings.limits, job_s=50.0))
    workers.look()  # ends it
    workers.look()  # gives back, and starts another
    assert (workers.alive, workers.deaths, one.state) == (1, 1, "complete")
    workers.stop(0.0)


def test_a_worker_that_cannot_go_on_says_so_in_one_line(tmp_path, monkeypatch, caplog):
    """As when the program is upgraded beneath it: what it imports late is of another version. The node starts another."""
    one = QueuedJob(tmp_path, {"aet": "PACS", "host": "127.0.0.1", "port": 104})
    monkeypatch.setattr(worker, "set_up_logs", lambda: None)
    monkeypatch.setattr(worker, "_follow", lambda _: None)

    def broken(_):
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(worker.Worker, "run", broken)
    with pytest.raises(SystemExit) as ended:
        worker.main(str(one.sending.settings.file), "worker1")
    assert ended.value.code == 1
    assert "worker1 cannot continue: ImportError: cannot import name 'x'" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_node_s_own_process_does_without_torch():
    """It would hold 200 MiB for nothing; so would ``ct-cncl node queue``, and take seconds to start."""
    code = "import sys, ct_cncl.pipeline.node.service, ct_cncl.pipeline.node.page, ct_cncl.pipeline.node.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
