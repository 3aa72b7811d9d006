"""Losses: pixel, adversarial, texture, perceptual and distillation."""

from ct_cncl.pipeline.losses.adversarial import HingeLoss, LeastSquaresLoss, VanillaLoss, discriminator_accuracy
from ct_cncl.pipeline.losses.distillation import DistillationLoss
from ct_cncl.pipeline.losses.feature import FeatureLoss
from ct_cncl.pipeline.losses.pixel import BranchLoss, Charbonnier, charbonnier
from ct_cncl.pipeline.losses.spectral_norm import SpectralPatchDiscriminator
from ct_cncl.pipeline.losses.texture import content_distance, gram_matrices, texture_distance

__all__ = [
    "BranchLoss",
    "Charbonnier",
    "DistillationLoss",
    "FeatureLoss",
    "HingeLoss",
    "LeastSquaresLoss",
    "SpectralPatchDiscriminator",
    "VanillaLoss",
    "charbonnier",
    "content_distance",
    "discriminator_accuracy",
    "gram_matrices",
    "texture_distance",
]
