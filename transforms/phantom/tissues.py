"""Tissue classes of a phantom, and the records that ``anatomical_phantom`` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
"""Single-precision array; its shape is stated at each use."""
Field = npt.NDArray[np.floating]
"""Floating-point array of any precision and shape."""

TISSUES: dict[str, int] = {
    "air": 0,  # around the patient
    "table": 1,  # shell, foam and mattress
    "skin": 2,
    "fat": 3,
    "muscle": 4,
    "lung": 5,  # parenchyma and the vessels in it
    "airway": 6,  # gas in trachea and bronchi
    "vessel": 7,  # blood in the great vessels and in those of liver and mesentery
    "heart": 8,  # myocardium and chambers
    "liver": 9,
    "lesion": 10,
    "spleen": 11,
    "kidney": 12,
    "pancreas": 13,  # and adrenal glands
    "bile": 14,  # gall bladder
    "bowel": 15,  # oesophagus, stomach, bowel: wall and liquid or solid content
    "gas": 16,  # in stomach and bowel
    "bone": 17,
    "cartilage": 18,  # discs and the front ends of the ribs
    "nerve": 19,  # spinal canal
}
"""Value of each tissue class in ``Phantom.labels``, by name."""


@dataclass(frozen=True)
class PhantomLesion:
    """A spherical liver lesion, known exactly.

    Attributes:
        centre: (x, y, z) in mm, RAS world of the volume (apply the inverse affine to get voxels).
        radius_mm: radius of the sphere in mm.
        contrast_hu: HU of the lesion minus HU of the liver around it; negative if it is darker than the liver.
    """

    centre: tuple[float, float, float]
    radius_mm: float
    contrast_hu: float


@dataclass(frozen=True)
class Phantom:
    """A noise-free CT volume with its ground truth.

    Attributes:
        hu: (x, y, z) float32, HU; axis 0 is the image column (0: patient's right), axis 1 the image row (0: anterior),
            axis 2 increases towards the head.
        labels: (x, y, z) uint8, values of :data:`TISSUES`.
        affine: (4, 4) float64, voxel index -> RAS mm; the centre of the volume is the origin.
        lesions: every lesion in the volume; empty if the slab holds no liver or has no room for a lesion.
    """

    hu: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    lesions: tuple[PhantomLesion, ...]
