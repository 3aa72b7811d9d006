"""The node's web page, for this machine only: the queue, each job with its pictures, and buttons to retry or drop it."""

from __future__ import annotations

import logging
import socket
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import jinja2
import pydicom
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ct_cncl.pipeline.node import manage
from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.health import health_of, metrics_of
from ct_cncl.pipeline.node.jobs import STATES, Job
from ct_cncl.pipeline.node.page_guard import LARGEST_FORM, Guard
from ct_cncl.pipeline.report.frame import TEMPLATES, styles
from ct_cncl.transforms import __version__

if TYPE_CHECKING:
    from ct_cncl.pipeline.node.service import Node

logger = logging.getLogger("ct_cncl.node")
_PICTURES = ("input", "result", "removed")
_FOLDER = Path(__file__).parent / "templates"
_SHOWN = 200
_FILES = {"page.css": "text/css", "node.css": "text/css", "node.js": "text/javascript"}


class Page:
    """The pages of a node.

    Args:
        node: a running node.
        guard: checks every request first; its token goes into the forms.
    """

    def __init__(self, node: Node, guard: Guard) -> None:
        self.node, self.guard = node, guard
        loader = jinja2.FileSystemLoader([_FOLDER, TEMPLATES])
        self.templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self.templates.filters["ago"] = ago
        self.app = Starlette(
            routes=[
                Route("/", self.queue),
                Route("/jobs/{number:int}", self.job),
                Route("/jobs/{number:int}/{picture}.png", self.picture),
                Route("/jobs/{number:int}/{act}", self.act, methods=["POST"]),
                Route("/files/{name}", self.file),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ]
        )

    def _shown(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        common = {
            "token": self.guard.token,
            "version": __version__,
            "aet": self.node.settings.aet,
            "health": health_of(self.node),
            "shadow": self.node.settings.shadow,
        }
        return HTMLResponse(self.templates.get_template(template).render(**common, **values), status)

    def queue(self, request: Request) -> Response:
        """Show the queue, filtered as the query asks."""
        asked = {name: request.query_params.get(name, "") for name in ("state", "sender", "warned")}
        states = (asked["state"],) if asked["state"] in STATES else ()
        jobs = self.node.jobs.all(*states)
        senders = sorted({job.sender for job in jobs})
        if asked["sender"]:
            jobs = [job for job in jobs if job.sender == asked["sender"]]
        if asked["warned"]:
            jobs = [job for job in jobs if job.warnings or job.error]
        rows = [self._row(job) for job in jobs[:_SHOWN]]
        return self._shown(
            "queue.html",
            rows=rows,
            counts=self.node.jobs.counts(),
            states=STATES,
            senders=senders,
            asked=asked,
            more=len(jobs) - len(rows),
        )

    def _row(self, job: Job) -> dict[str, Any]:
        deliveries = self.node.jobs.database.rows("SELECT * FROM deliveries WHERE job = ? ORDER BY destination", job.id)
        count = self.node.jobs.database.one("SELECT COUNT(*) FROM members WHERE job = ?", job.id)
        return {
            "job": job,
            "objects": count,
            "deliveries": deliveries,
            "name": self._name(job),
            "state": shown_state(job),
        }

    def _name(self, job: Job) -> str:
        """The patient's name if the configuration shows names, otherwise empty."""
        if self.node.settings.page is None or not self.node.settings.page.names:
            return ""
        path = self.node.jobs.database.one(
            "SELECT path FROM members JOIN objects USING (uid) WHERE job = ? AND path IS NOT NULL LIMIT 1", job.id
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(
                    self.node.settings.spool / path, stop_before_pixels=True, specific_tags=["PatientName"]
                )
                return str(header.get("PatientName") or "")
        except Exception:  # the file has just been removed, or pydicom cannot read it
            return ""

    def job(self, request: Request) -> Response:
        """Show one job."""
        try:
            job = self.node.jobs.get(request.path_params["number"])
        except NodeError as error:
            return self._shown("problem.html", 404, problem=str(error))
        pictures = [name for name in _PICTURES if (self._pictures(job) / f"{name}.png").is_file()]
        return self._shown("job.html", row=self._row(job), job=job, pictures=pictures)

    def _pictures(self, job: Job) -> Path:
        return self.node.spool.job_results(job.id) / "pictures"

    def picture(self, request: Request) -> Response:
        """Send one picture of a job."""
        name = request.path_params["picture"]
        path = self.node.spool.job_results(request.path_params["number"]) / "pictures" / f"{name}.png"
        if name not in _PICTURES or not path.is_file():
            return PlainTextResponse("no such picture", 404)
        return FileResponse(path, media_type="image/png")

    async def act(self, request: Request) -> Response:
        """Retry or drop a job. The guard has checked the request's origin; the token shows that it comes from this page."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_FORM:
                return PlainTextResponse("form too large", 413)
        form = {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}
        if not self.guard.knows(form.get("token", "")):
            return PlainTextResponse("Expected the token of this page, but got another. Reload the page.", 403)
        node, number, act = self.node, request.path_params["number"], request.path_params["act"]
        try:
            if act == "retry":
                await run_in_threadpool(manage.retry, node.jobs, node.audit, number)
            elif act == "drop":
                await run_in_threadpool(manage.drop, node.jobs, node.audit, node.retention, number)
            else:
                return PlainTextResponse("no such action", 404)
        except NodeError as error:
            return await run_in_threadpool(self._shown, "problem.html", 409, problem=str(error))
        return RedirectResponse("/" if act == "drop" else f"/jobs/{number}", 303)

    def file(self, request: Request) -> Response:
        """Send a style sheet or the script."""
        name = request.path_params["name"]
        if name not in _FILES:
            return PlainTextResponse("no such file", 404)
        if name == "page.css":
            return Response(styles(), media_type=_FILES[name])
        return FileResponse(_FOLDER / name, media_type=_FILES[name])

    def health(self, request: Request) -> Response:  # noqa: ARG002
        """Answer a supervisor: 200 while all is well, otherwise 503 with the problems."""
        found = health_of(self.node)
        return JSONResponse({"ok": found.ok, "problems": list(found.problems)}, 200 if found.ok else 503)

    def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Send the metrics to Prometheus."""
        return PlainTextResponse(metrics_of(self.node), media_type="text/plain; version=0.0.4")


def shown_state(job: Job) -> str:
    """A job's state in words for people."""
    if job.state == "done":
        return "ignored" if job.ignored else "kept (shadow)" if job.shadow else "done"
    return "retrying" if job.state in ("complete", "sending") and job.error else job.state


def ago(when: float) -> str:
    """How long ago a time was, in words.

    >>> ago(time.time() - 90)
    '1 min ago'
    """
    seconds = max(time.time() - when, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def serve(node: Node) -> Any:
    """Serve the page from a thread of this process, to this machine only.

    Returns:
        The server. Set ``should_exit`` to stop it; ``config.port`` is its port.

    Raises:
        NodeError: the port is taken.
    """
    page = node.settings.page
    assert page is not None
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", page.port))
    except OSError as error:
        listening.close()
        raise NodeError(
            f"Expected to show the page on port {page.port}, but got: {error.strerror}. Choose another page.port."
        ) from error
    port = listening.getsockname()[1]
    guard = Guard(page.hosts)
    app = guard.around(Page(node, guard).app)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=100,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="page", daemon=True).start()
    logger.info("the page: http://127.0.0.1:%d/", port)
    return server
