"""Anatomical CT phantoms generated from a seed: the embedded default data."""

from ct_cncl.transforms.phantom.anatomy import anatomical_phantom
from ct_cncl.transforms.phantom.tissues import TISSUES, Phantom, PhantomLesion

__all__ = ["TISSUES", "Phantom", "PhantomLesion", "anatomical_phantom"]
