"""Sweep from one network to another: fidelity against noise texture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch import nn
from tqdm import tqdm

from ct_cncl.pipeline.metrics import psnr
from ct_cncl.pipeline.metrics.nps_distance import MIN_PATCHES, nps_distance, patches_at, uniform_patches
from ct_cncl.pipeline.networks import centre_slice
from ct_cncl.transforms.anatomy.regions import NoisePower, noise_power_spectrum
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.hu import HU_RANGE, to_hu
from ct_cncl.transforms.patches.network_units import HUToNetworkd
from ct_cncl.transforms.patches.padding import PaddingMaskd
from ct_cncl.transforms.patches.slice_pairs import SlicePairs


class ScanPoint(NamedTuple):
    """Figures of the network at one alpha, or of the input."""

    alpha: float | None
    """None for the input."""
    psnr: float
    """Mean over slices, dB, for a data range of 4096 HU."""
    nps_distance: float
    """Mean over volumes, see the function ``nps_distance``."""


class SliceEvaluator:
    """PSNR and noise texture of networks on the slices of a data set; all that depends on the reference is computed once.

    Args:
        data: entries of a split.
        max_slices: largest number of slices, evenly spaced; None takes all.
        device: device on which the network runs.
        context_slices: number of slices that the network takes.

    Raises:
        DataError: the reference has no noise, or too little uniform soft tissue to measure it in.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        *,
        max_slices: int | None,
        device: torch.device,
        context_slices: int = 1,
    ) -> None:
        if any(entry.get("provenance", {}).get("truth") == "noise-free" for entry in data):
            raise DataError(
                "Expected scans, whose noise texture results are compared with, but got phantoms with a noise-free truth. Name a "
                "data set of scans with --data."
            )
        units = Compose([PaddingMaskd("label"), HUToNetworkd(("image", "label"))])
        self.pairs = SlicePairs(data, units, max_slices=max_slices, context_slices=context_slices)
        self.device = device
        self.corners = [uniform_patches(self._hu(number, "label")) for number in range(len(self.pairs))]
        counts: dict[str, int] = {}
        for (entry, _), corners in zip(self.pairs.slices, self.corners, strict=True):
            counts[entry["label"]] = counts.get(entry["label"], 0) + len(corners)
        self.volumes = [path for path, count in counts.items() if count >= MIN_PATCHES]
        if not self.volumes:
            raise DataError(
                f"Expected a volume with at least {MIN_PATCHES} uniform patches of soft tissue, but found none. Choose another "
                "split, or more slices."
            )
        self.reference = self._spectra([self._hu(number, "label") for number in range(len(self.pairs))])

    def _hu(self, number: int, key: str) -> np.ndarray:
        return to_hu(centre_slice(self.pairs[number][key][None]))[0, 0].numpy()

    def _spectra(self, images: Sequence[np.ndarray]) -> dict[str, NoisePower]:
        spectra = {}
        for path in self.volumes:
            chosen = [k for k, (entry, _) in enumerate(self.pairs.slices) if entry["label"] == path and self.corners[k]]
            patches = np.concatenate([patches_at(images[k], self.corners[k]) for k in chosen])
            spacing = self.pairs.slices[chosen[0]].entry["spacing_mm"]
            spectra[path] = noise_power_spectrum(patches, (float(spacing[0]), float(spacing[1])))
        return spectra

    def _point(self, alpha: float | None, images: Sequence[np.ndarray]) -> ScanPoint:
        levels = [
            float(
                psnr(torch.from_numpy(image)[None, None], to_hu(self.pairs[number]["label"])[None], data_range=HU_RANGE)
            )
            for number, image in enumerate(images)
        ]
        spectra = self._spectra(images)
        distances = [nps_distance(spectra[path], self.reference[path]) for path in self.volumes]
        return ScanPoint(alpha, float(np.mean(levels)), float(np.mean(distances)))

    def input(self) -> ScanPoint:
        """Figures of the low-dose images themselves."""
        return self._point(None, [self._hu(number, "image") for number in range(len(self.pairs))])

    @torch.no_grad()
    def network(self, network: nn.Module, alpha: float, bar: tqdm) -> ScanPoint:
        """Figures of a network, which must be in eval mode and on the device."""
        images = []
        for number in range(len(self.pairs)):
            pair = self.pairs[number]
            result = to_hu(network(pair["image"][None].to(self.device)).float().cpu())
            low_dose = to_hu(centre_slice(pair["image"][None]))
            images.append(torch.where(pair["padding"][None], low_dose, result)[0, 0].numpy())
            bar.update()
        return self._point(alpha, images)


def curve_picture(points: Sequence[ScanPoint]) -> str:
    """Plot PSNR against NPS distance, and both against alpha, side by side as SVG; dashed lines show the input.

    Args:
        points: the figures, those of the input first.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    low_dose, way = points[0], points[1:]
    alpha = ("alpha (1: first, 0: second)", [point.alpha for point in way])
    psnr = (f"PSNR dB (range {HU_RANGE:g} HU)", [point.psnr for point in way])
    nps = ("NPS distance to the reference", [point.nps_distance for point in way])
    panels = [
        ("Fidelity against texture", nps, psnr, low_dose.psnr),
        ("Fidelity", alpha, psnr, low_dose.psnr),
        ("Texture", alpha, nps, low_dose.nps_distance),
    ]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "curve"}):
        figure = Figure(figsize=(12.6, 3.4), layout="constrained")
        for axes, (title, (x_label, x), (y_label, y), reference) in zip(figure.subplots(1, 3), panels):
            axes.plot(x, y, "o-", color="#0072b2", gid=title.replace(" ", "_"))
            axes.axhline(reference, color="black", dashes=(4, 3), linewidth=1)
            axes.set(title=title, xlabel=x_label, ylabel=y_label)
            axes.grid(color="#dddddd")
            if title == "Fidelity against texture":
                for point in way:
                    axes.annotate(f" {point.alpha:.2g}", (point.nps_distance, point.psnr), fontsize=8, va="bottom")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
