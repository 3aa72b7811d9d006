"""Everything that needs no network: reading and writing scans, noise simulation, phantoms and training patches.

The transforms for MONAI's ``Compose`` are exported here, such as ``ct_cncl.transforms.RandPatchd``. Most come in two forms: one for
a single image and, with a trailing ``d``, one for a dictionary of images.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_MODULES = {
    "patches.body_weight": ("BodyWeight", "BodyWeightd"),
    "patches.centre": ("CentreSlice", "CentreSliced"),
    "patches.cut": ("RandPatch", "RandPatchd"),
    "patches.lesions": ("RandLesions", "RandLesionsd"),
    "patches.low_dose": ("SimulateLowDose", "SimulateLowDosed"),
    "patches.network_units": ("HUToNetwork", "HUToNetworkd", "NetworkToHU", "NetworkToHUd"),
    "patches.orientation": ("RandOrientation", "RandOrientationd"),
    "patches.padding": ("KeepPaddingd", "PaddingMask", "PaddingMaskd"),
    "patches.patch_pairs": ("PatchPairs", "SampleNumbers"),
    "patches.pixel_size": ("RandPixelSize", "RandPixelSized"),
    "patches.random_dose": ("RandLowDose", "RandLowDosed"),
    "patches.sharpness": ("RandSharpness", "RandSharpnessd"),
    "patches.slice_pairs": ("SlicePairs",),
    "series.monai_io": ("LoadScand", "SaveScand"),
    "series.monai_reader": ("ScanReader",),
}
__all__ = [name for names in _MODULES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Import a transform on first use: importing MONAI takes seconds, and much of this package does not need it."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
