"""Predictors, interactions, fusions and CNCL itself, to be named in a bundle's config."""

from ct_cncl.pipeline.networks.block_unet import BlockDecoder, BlockUNet
from ct_cncl.pipeline.networks.branches import Branches, BranchOutputs, centre_slice
from ct_cncl.pipeline.networks.cncl import CNCL
from ct_cncl.pipeline.networks.discriminator import Amplified, Detail, Relative
from ct_cncl.pipeline.networks.dncnn import DnCNN
from ct_cncl.pipeline.networks.feature_fusion import EmbeddedFusion, FeatureFusion
from ct_cncl.pipeline.networks.fusion import ConvFusion
from ct_cncl.pipeline.networks.initialise import initialise_gaussian
from ct_cncl.pipeline.networks.interacting import InteractingCNCL
from ct_cncl.pipeline.networks.interaction import Exchange, FeatureAttention
from ct_cncl.pipeline.networks.redcnn import REDCNN
from ct_cncl.pipeline.networks.restormer import Restormer
from ct_cncl.pipeline.networks.srdensenet import SRDenseNet
from ct_cncl.pipeline.networks.unet import UNet

__all__ = [
    "CNCL",
    "REDCNN",
    "Amplified",
    "BlockDecoder",
    "BlockUNet",
    "BranchOutputs",
    "Branches",
    "ConvFusion",
    "Detail",
    "DnCNN",
    "EmbeddedFusion",
    "Exchange",
    "FeatureAttention",
    "FeatureFusion",
    "InteractingCNCL",
    "Relative",
    "Restormer",
    "SRDenseNet",
    "UNet",
    "centre_slice",
    "initialise_gaussian",
]
