"""The node's state, for ``/health``, ``/metrics`` (Prometheus text format 0.0.4) and the page header."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ct_cncl.transforms import __version__

if TYPE_CHECKING:
    from ct_cncl.pipeline.node.service import Node

_STUCK_S = 1800.0


@dataclass(frozen=True)
class Health:
    """The node's problems, one phrase each; empty if all is well."""

    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.problems


def health_of(node: Node) -> Health:
    """The health of a running node."""
    problems = []
    settings = node.settings
    if not node.receiver.is_listening:
        problems.append("the node is not listening")
    if settings.workers and node.workers.alive < settings.workers:
        problems.append(f"{settings.workers - node.workers.alive} of {settings.workers} workers are not running")
    if not node.spool.has_room(settings.limits.free_bytes):
        problems.append("the disk is full: objects are refused")
    counts = node.jobs.counts()
    if counts["failed"]:
        problems.append(f"failed jobs that need attention: {counts['failed']}")
    late = node.jobs.database.one("SELECT COUNT(*) FROM deliveries WHERE state = 'waiting' AND tries > 2")
    if late:
        problems.append(f"{late} deliveries are not accepted by their destination")
    oldest = node.jobs.database.one("SELECT MIN(changed) FROM jobs WHERE state IN ('complete', 'denoising')")
    if oldest is not None and time.time() - oldest > _STUCK_S:
        problems.append(f"a job has waited for {(time.time() - oldest) / 60:.0f} minutes")
    problems += [f"{name} fails: {error}" for name, error in sorted(node.failing.items())]
    return Health(tuple(problems))


def metrics_of(node: Node) -> str:
    """Counters since the start and gauges of the current state, as Prometheus text."""
    lines = []

    def add(name: str, kind: str, what: str, values: dict[str, float]) -> None:
        lines.append(f"# HELP ct_cncl_{name} {what}")
        lines.append(f"# TYPE ct_cncl_{name} {kind}")
        lines.extend(f"ct_cncl_{name}{labels} {value:g}" for labels, value in values.items())

    def by(label: str, values: dict[str, float]) -> dict[str, float]:
        return {f'{{{label}="{key}"}}': value for key, value in values.items()}

    counts, usage = node.jobs.counts(), shutil.disk_usage(node.settings.spool)
    add("info", "gauge", "Version of the program.", {f'{{version="{__version__}"}}': 1})
    add("up_seconds", "gauge", "Seconds since the start.", {"": time.monotonic() - node.started})
    add("healthy", "gauge", "1 while /health says ok.", {"": float(health_of(node).ok)})
    add("jobs", "gauge", "Jobs by state.", by("state", dict(counts)))
    add("objects_total", "counter", "C-STORE requests by answer.", by("answer", dict(node.receiver.storing.counts)))
    add(
        "connections_refused_total",
        "counter",
        "Connections refused before an association.",
        {"": node.receiver.refused_connections},
    )
    add("workers_alive", "gauge", "Processes that denoise.", {"": node.workers.alive})
    add("worker_deaths_total", "counter", "Processes that ended unexpectedly.", {"": node.workers.deaths})
    sent = {sending.destination.name: float(sending.objects) for sending in node.sendings}
    add("sent_objects_total", "counter", "Objects accepted by a destination.", by("destination", sent))
    failures = {sending.destination.name: float(sending.failures) for sending in node.sendings}
    add("send_failures_total", "counter", "Failed tries to send.", by("destination", failures))
    add("disk_free_bytes", "gauge", "Free bytes on the spool's disk.", {"": usage.free})
    done = node.jobs.database.row(
        "SELECT COUNT(*), COALESCE(SUM(json_extract(outcome, '$.seconds')), 0), COALESCE(SUM(json_extract(outcome, '$.slices')), 0) "
        "FROM jobs WHERE outcome IS NOT NULL"
    )
    assert done is not None
    add("denoised_jobs", "gauge", "Denoised jobs that are still in the database.", {"": done[0]})
    add("denoising_seconds", "gauge", "Seconds spent on these jobs.", {"": done[1]})
    add("denoised_slices", "gauge", "Slices of these jobs.", {"": done[2]})
    return "\n".join(lines) + "\n"
