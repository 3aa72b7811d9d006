"""The node's page with an invented queue: jobs in every state, with pictures, without a network."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from tiny_node import config

from ct_cncl.pipeline.common.panel import save_png
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import Database
from ct_cncl.pipeline.node.facts import Facts, Identity
from ct_cncl.pipeline.node.jobs import Jobs
from ct_cncl.pipeline.node.page import serve
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.retention import Retention
from ct_cncl.pipeline.node.spool import Spool

ACTION = {
    "do": "denoise",
    "strength": 0.8,
    "precision": "fp32",
    "send": ["pacs"],
    "reasons": ["soft: yes, kernel is B30f, wanted B3*"],
}
FACTS = Facts(
    modality="CT",
    manufacturer="SIEMENS",
    kernel="B30f",
    kvp=120.0,
    slice_thickness=1.5,
    body_part="CHEST",
    series_description="Thorax <1.5> B30f",
)


def made_up_node(folder, **page):
    """What the page needs of a node."""
    settings = read_settings(
        config(
            folder,
            None,
            "",
            rules=[],
            page={"port": 0} | page,
            destinations={"pacs": {"aet": "PACS", "host": "127.0.0.1", "port": 104}},
        )
    )
    spool = Spool(settings.spool)
    spool.prepare()
    jobs, audit = Jobs(Database(spool.folder)), Audit(spool.folder)
    receiver = SimpleNamespace(
        is_listening=True, refused_connections=0, storing=SimpleNamespace(counts={"stored": 12, "again": 0})
    )
    return SimpleNamespace(
        settings=settings, spool=spool, jobs=jobs, audit=audit, receiver=receiver, workers=SimpleNamespace(alive=1, deaths=0), sendings=[],
        failing={}, started=time.monotonic(), retention=Retention(settings, spool, jobs, audit),
    )  # fmt: skip


def add_job(node, number, state, *, error=None, warnings=(), sender="CT1", deliver="waiting"):
    """A job in a state, with pictures and results if it has got that far."""
    jobs, series = node.jobs, f"1.2.{number}"
    identity = Identity(f"{series}.1", "1.2.840.10008.5.1.4.1.1.2", "1.1", series, "p")
    job = jobs.add_object(identity, FACTS, digest="d", path=None, size=1, sender=sender, address="127.0.0.1")
    values = {"action": ACTION, "facts": FACTS.plain(), "rule": "soft", "warnings": list(warnings), "error": error}
    jobs.move(job, "received", "complete" if state != "received" else "received", **values)
    if state in ("sending", "done", "failed") and not (state == "failed" and deliver is None):
        jobs.claim("worker1")
        outcome = {"files": [{"uid": "9"}], "slices": 300, "seconds": 21.4, "noise_before": 34.2, "noise_after": 14.1}
        jobs.finish(job, outcome, list(warnings), ("pacs",))
        y, x = np.mgrid[:256, :256]
        disc = ((x - 128) ** 2 + (y - 128) ** 2 < 100**2) * 120
        noise = np.random.default_rng(number).normal(0, 25, (256, 256))
        for name, image in (
            ("input", disc + 60 + noise),
            ("result", disc + 60 + noise / 3),
            ("removed", 128 + 2 * noise),
        ):
            save_png(image.clip(0, 255).astype(np.uint8), node.spool.job_results(job) / "pictures" / f"{name}.png")
        with jobs.database.change() as change:
            change.execute(
                "UPDATE deliveries SET state = ? WHERE job = ?", ("sent" if state == "done" else deliver, job)
            )
        if state != "sending":
            jobs.move(job, "sending", state, error=error)
    elif state in ("denoising", "failed"):
        jobs.move(job, "complete", state)
    return job


@contextmanager
def served(node):
    """The page's address."""
    server = serve(node)
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
