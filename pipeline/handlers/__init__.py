"""Ignite event handlers: checkpoints, metrics.csv, pictures, learning rates and more."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_cncl.pipeline.handlers.branch_health import BranchHealth
    from ct_cncl.pipeline.handlers.budget import BudgetSchedule
    from ct_cncl.pipeline.handlers.checkpoints import Checkpoints
    from ct_cncl.pipeline.handlers.curves import LearningRateLogger, MetricsCSV, loss_terms
    from ct_cncl.pipeline.handlers.ema import EMA
    from ct_cncl.pipeline.handlers.evaluation import EvaluationTable, WrittenFiles
    from ct_cncl.pipeline.handlers.forward_seconds import ForwardSeconds
    from ct_cncl.pipeline.handlers.kept_slices import KeptSlices
    from ct_cncl.pipeline.handlers.pictures import PicturePanel
    from ct_cncl.pipeline.handlers.progress import TrainingProgress
    from ct_cncl.pipeline.handlers.stats import StatsLog
    from ct_cncl.pipeline.handlers.step_figures import StepFigures
    from ct_cncl.pipeline.handlers.validation import Validation

__all__ = [
    "EMA",
    "BranchHealth",
    "BudgetSchedule",
    "Checkpoints",
    "EvaluationTable",
    "ForwardSeconds",
    "KeptSlices",
    "LearningRateLogger",
    "MetricsCSV",
    "PicturePanel",
    "StatsLog",
    "StepFigures",
    "TrainingProgress",
    "Validation",
    "WrittenFiles",
    "loss_terms",
]

_MODULES = {
    "BranchHealth": "branch_health",
    "BudgetSchedule": "budget",
    "Checkpoints": "checkpoints",
    "LearningRateLogger": "curves",
    "MetricsCSV": "curves",
    "loss_terms": "curves",
    "EMA": "ema",
    "EvaluationTable": "evaluation",
    "WrittenFiles": "evaluation",
    "ForwardSeconds": "forward_seconds",
    "KeptSlices": "kept_slices",
    "PicturePanel": "pictures",
    "TrainingProgress": "progress",
    "StatsLog": "stats",
    "StepFigures": "step_figures",
    "Validation": "validation",
}


def __getattr__(name: str) -> Any:
    """Import handlers on first use: they need Ignite, whose import takes seconds and which denoising does not need."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
