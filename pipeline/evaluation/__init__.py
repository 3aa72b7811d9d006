"""Evaluate denoised scans against a reference."""

from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table
from ct_cncl.pipeline.evaluation.record import (
    INPUT,
    MAPS,
    REFERENCE,
    ComparisonRow,
    Evaluation,
    Measure,
    Method,
    PatientRow,
    Provenance,
    SliceRow,
    SliceView,
    SummaryRow,
)

__all__ = [
    "INPUT",
    "MAPS",
    "REFERENCE",
    "Chart",
    "ComparisonRow",
    "Curve",
    "Evaluation",
    "Measure",
    "Method",
    "PatientRow",
    "Provenance",
    "SliceRow",
    "SliceView",
    "SummaryRow",
    "Table",
]
