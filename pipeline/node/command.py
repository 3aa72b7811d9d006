"""The commands ``ct-cncl node queue``, ``retry`` and ``drop``. They work whether or not the node is running."""

from __future__ import annotations

from pathlib import Path

from ct_cncl.pipeline.node import manage
from ct_cncl.pipeline.node.audit import Audit
from ct_cncl.pipeline.node.database import DATABASE_FILE, Database
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.jobs import STATES, Jobs
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.retention import Retention
from ct_cncl.pipeline.node.settings import NodeSettings
from ct_cncl.pipeline.node.spool import Spool


def show_queue(config: Path, states: tuple[str, ...]) -> list[str]:
    """The queue as lines of text.

    Raises:
        NodeError: there is no queue yet, or a state is unknown.
    """
    unknown = sorted(set(states) - set(STATES))
    if unknown:
        raise NodeError(f"Expected states from {', '.join(STATES)}, but got {', '.join(unknown)}.")
    _, jobs, _ = _opened(config)
    return manage.table(jobs, *states)


def retry_job(config: Path, number: int) -> str:
    """See :func:`ct_cncl.pipeline.node.manage.retry`."""
    _, jobs, audit = _opened(config)
    return manage.retry(jobs, audit, number)


def drop_job(config: Path, number: int) -> str:
    """See :func:`ct_cncl.pipeline.node.manage.drop`."""
    settings, jobs, audit = _opened(config)
    return manage.drop(jobs, audit, Retention(settings, Spool(settings.spool), jobs, audit), number)


def _opened(config: Path) -> tuple[NodeSettings, Jobs, Audit]:
    settings = read_settings(config)
    if not (settings.spool / DATABASE_FILE).is_file():
        raise NodeError(f"Expected a node's queue in {settings.spool}, but there is none yet. Start the node first.")
    return settings, Jobs(Database(settings.spool)), Audit(settings.spool)
