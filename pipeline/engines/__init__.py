"""Ignite engines built on MONAI's: training and validation of CNCL, and what several processes need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_cncl.pipeline.engines.evaluator import CNCLEvaluator
    from ct_cncl.pipeline.engines.trainer import CNCLTrainer

__all__ = ["CNCLEvaluator", "CNCLTrainer"]


def __getattr__(name: str) -> Any:
    """Import the engines on first use. They import MONAI, which takes seconds and which denoising does not need."""
    if name == "CNCLEvaluator":
        from ct_cncl.pipeline.engines.evaluator import CNCLEvaluator

        return CNCLEvaluator
    if name == "CNCLTrainer":
        from ct_cncl.pipeline.engines.trainer import CNCLTrainer

        return CNCLTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
