"""The report of an evaluation: one self-contained HTML file, which opens from disk and needs no network."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path

from ct_cncl.pipeline.common.extras import is_installed
from ct_cncl.pipeline.evaluation.record import Evaluation
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES
from ct_cncl.pipeline.report.charts import draw_chart, method_colours
from ct_cncl.pipeline.report.frame import environment, styles, template_text
from ct_cncl.pipeline.report.headline import headline
from ct_cncl.pipeline.report.summary_tables import summary_sheets
from ct_cncl.pipeline.report.tables import (
    comparison_sheet,
    other_sheet,
    patient_sheet,
    slice_sheet,
)
from ct_cncl.pipeline.report.viewer_data import PackedSlices, choose_slices, pack_planes
from ct_cncl.transforms.common.files import replacing

MAX_BYTES = 20_000_000
"""Largest size of a page, bytes."""
SENTENCE_BYTES = 500
"""Bytes reserved for the remark that not all slices are shown."""
SCRIPTS = ("pixels.js", "stage.js", "viewer.js", "gestures.js", "tables.js", "main.js")
"""Scripts of the page, each after those that it needs."""


def write_page(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the report of an evaluation.

    The page holds slices as integer HU, shown in any window, sortable tables, charts as SVG, and what is needed to repeat the
    evaluation. A content security policy in the page forbids every request and every script but its own.

    Args:
        evaluation: the evaluation.
        path: path of the HTML file; an existing file is replaced.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    page = page_html(evaluation)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def page_html(evaluation: Evaluation, *, max_bytes: int = MAX_BYTES) -> str:
    """The report as text, see :func:`write_page`; if it would exceed ``max_bytes``, fewer slices are shown, evenly spaced."""
    made = environment()
    made.filters["when"] = _when
    template = made.get_template("page.html")
    colours = method_colours(evaluation)
    charts = [draw_chart(one, colours) for one in evaluation.charts] if is_installed("matplotlib") else []

    def rendered(packed: PackedSlices) -> str:
        page = template.render(**_content(evaluation, packed, colours, max_bytes), charts=charts)
        return page.encode("utf-8", "backslashreplace").decode()  # file names may hold bytes that are not text

    planes = pack_planes(evaluation)
    everything = choose_slices(evaluation, planes)
    page = rendered(everything)
    if (size := len(page.encode())) <= max_bytes:
        return page
    rest = size - sum(map(len, everything.planes.values()))
    return rendered(choose_slices(evaluation, planes, max_bytes=max_bytes - rest - SENTENCE_BYTES))


def _content(
    evaluation: Evaluation, packed: PackedSlices, colours: dict[str, str], max_bytes: int
) -> dict[str, object]:
    """All variables of the template except the charts."""
    shown = {one["label"]: number for number, one in enumerate(packed.manifest["slices"])}
    script = _script()
    optional = [
        comparison_sheet(evaluation),
        patient_sheet(evaluation, colours),
        slice_sheet(evaluation, colours, shown),
    ]
    return {
        "evaluation": evaluation,
        "colours": colours,
        "style": styles("viewer.css"),
        "headline": headline(evaluation),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "viewer": packed.manifest,
        "planes": packed.planes,
        "left_out": packed.left_out,
        "limit_mb": round(max_bytes / 1e6),
        "has_marks": any(one["marks"] for one in packed.manifest["slices"]),
        "has_disagreement": any(view["kind"] == "disagreement" for view in packed.manifest["views"]),
        "summaries": summary_sheets(evaluation, colours),
        "details": [sheet for sheet in optional if sheet is not None],
        "least_values": LEAST_VALUES,
        "several_patients": len({row.patient for row in evaluation.patient_rows}) > 1,
        "tables": [other_sheet(table) for table in evaluation.tables],
    }


def _when(created: str) -> str:
    """Date and time for display; a text that is not ISO 8601 stays as it is."""
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return created


def _script() -> str:
    """All scripts joined into one, in strict mode and with their own scope."""
    return '(() => {\n"use strict";\n' + "\n".join(template_text(name) for name in SCRIPTS) + "\n})();"
