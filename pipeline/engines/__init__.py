"""Ignite engines on MONAI's: training and validation of CNCL, and what they need across processes."""

from ct_cncl.pipeline.engines.evaluator import CNCLEvaluator
from ct_cncl.pipeline.engines.trainer import CNCLTrainer

__all__ = ["CNCLEvaluator", "CNCLTrainer"]
