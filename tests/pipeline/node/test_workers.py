"""A worker whose job never ends is ended itself."""

import subprocess
import sys
from dataclasses import replace

import pytest
from queued_job import QueuedJob

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

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
