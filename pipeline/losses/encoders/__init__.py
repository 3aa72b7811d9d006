"""Encoders whose features measure texture and content: VGG-19, and one trained on CT."""

from ct_cncl.pipeline.losses.encoders.ct import CTAutoencoder, CTEncoder
from ct_cncl.pipeline.losses.encoders.stages import ConvStages, frozen
from ct_cncl.pipeline.losses.encoders.vgg import VGG19

__all__ = ["VGG19", "CTAutoencoder", "CTEncoder", "ConvStages", "frozen"]
