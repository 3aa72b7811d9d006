"""Predictors, fusion and CNCL itself; a bundle config names them and their widths."""

from ct_cncl.pipeline.networks.cncl import CNCL, Branches, BranchOutputs
from ct_cncl.pipeline.networks.fusion import ConvFusion
from ct_cncl.pipeline.networks.initialise import initialise_gaussian
from ct_cncl.pipeline.networks.unet import UNet

__all__ = ["CNCL", "BranchOutputs", "Branches", "ConvFusion", "UNet", "initialise_gaussian"]
