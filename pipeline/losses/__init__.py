"""Losses: pixel and adversarial."""

from ct_cncl.pipeline.losses.adversarial import LeastSquaresLoss
from ct_cncl.pipeline.losses.pixel import BranchLoss

__all__ = ["BranchLoss", "LeastSquaresLoss"]
