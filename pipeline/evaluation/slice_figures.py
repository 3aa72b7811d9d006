"""All figures of one slice; values that depend on the reference alone are computed once for all methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from ct_cncl.pipeline.evaluation.measures import span_of, tissue_key
from ct_cncl.pipeline.evaluation.record import INPUT
from ct_cncl.pipeline.metrics.disagreement import rank_correlation
from ct_cncl.pipeline.metrics.image_quality import mae, psnr, rmse, ssim
from ct_cncl.pipeline.metrics.nps_distance import patches_at, uniform_patches
from ct_cncl.pipeline.metrics.structure import edge_correlation, local_edge_correlation
from ct_cncl.pipeline.metrics.tissue import LEAST_PIXELS, hu_error, tissue_masks
from ct_cncl.pipeline.metrics.visual_information import vif
from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.common.hu import Window

PIXELS_KEPT = 4000
"""Number of pixels of a slice for the calibration of disagreement, spread evenly over the body."""
WORST_PLACES = 0.95
"""Quantile of the local leakage that is reported."""


@dataclass
class Figures:
    """Figures of one image, and the reasons for missing ones."""

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, compute: Callable[[], float]) -> None:
        """Add a figure, or the reason why there is none; NaN and infinity count as missing."""
        try:
            value = float(compute())
        except ValueError as error:
            self.missing[key] = short_reason(error)
            return
        if np.isfinite(value):
            self.values[key] = value
        else:
            self.missing[key] = "equal images" if key.startswith("psnr") else f"the figure is {value}"


@dataclass
class MeasuredSlice:
    """The results of one slice.

    Attributes:
        figures: figures by method.
        patches: uniform patches (n, k, k), HU, for noise power, by method and for "reference"; empty if there are none.
        calibration: disagreement and absolute error of some pixels, (2, n), HU, by method.
        reference: noise and CNR of the reference itself, with which those of the methods are compared.
    """

    figures: dict[str, Figures]
    patches: dict[str, np.ndarray]
    calibration: dict[str, np.ndarray]
    reference: Figures = field(default_factory=Figures)


def short_reason(error: BaseException) -> str:
    """An error's message as a note in a table: what was found, without the advice.

    >>> short_reason(ValueError("Expected at least 50 pixels, but got 3. Give more."))
    'expected at least 50 pixels, but got 3'
    """
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def measure_slice(
    reference: np.ndarray,
    images: Mapping[str, np.ndarray],
    *,
    padded: np.ndarray,
    windows: Mapping[str, Window],
    region: str,
    disagreement: Mapping[str, np.ndarray] | None = None,
    tissues: Mapping[str, np.ndarray] | None = None,
) -> MeasuredSlice:
    """Compute every figure of every image of one slice.

    Args:
        reference: (x, y), HU, finite.
        images: images by method, of the same shape; "input" is the one from which noise was removed.
        padded: bool (x, y), True on the scanner's padding.
        windows: windows of PSNR, SSIM and VIF by name.
        region: pixels over which PSNR, SSIM, RMSE and MAE are computed: "scan", "body" or "all".
        disagreement: |C(y) - (y - N(y))| by method, HU.
        tissues: masks (x, y) by tissue, over which HU errors are computed; None takes tissues from the smoothed reference.
    """
    body = body_mask(reference) & ~padded
    inside = {"scan": ~padded, "body": body, "all": np.ones(reference.shape, dtype=bool)}[region]
    judged = MeasuredSlice({name: Figures() for name in images}, {}, {})
    _image_quality(judged.figures, images, reference, inside, windows)
    by_hu = tissue_masks(reference, valid=~padded)
    corners = uniform_patches(reference)
    judged.patches = {name: _patches(image, corners) for name, image in {**images, "reference": reference}.items()}
    _noise(judged.reference, reference, judged.patches["reference"], by_hu)
    before = images.get(INPUT)
    for name, image in images.items():
        figures = judged.figures[name]
        _tissue_errors(figures, image, reference, by_hu if tissues is None else tissues)
        _noise(figures, image, judged.patches[name], by_hu)
        if before is not None and name != INPUT:
            _leakage(figures, before - image, reference)
        if disagreement and name in disagreement:
            judged.calibration[name] = _disagreement(figures, disagreement[name], image - reference, body)
    return judged


def _image_quality(
    figures: Mapping[str, Figures],
    images: Mapping[str, np.ndarray],
    reference: np.ndarray,
    inside: np.ndarray,
    windows: Mapping[str, Window],
) -> None:
    """Image figures of all methods at once, so that what depends on the reference is computed once per window."""
    names = list(images)
    stack = torch.from_numpy(np.stack([images[name] for name in names]))[:, None]
    wanted = torch.from_numpy(reference)[None, None].expand(stack.shape)
    mask = torch.from_numpy(inside)[None, None].expand(stack.shape)
    computed: dict[str, Callable[[], torch.Tensor]] = {
        "rmse": lambda: rmse(stack, wanted, mask=mask),
        "mae": lambda: mae(stack, wanted, mask=mask),
    }
    for name, window in windows.items():
        span = span_of(window)
        # Bind the span now: the loop goes on before these are called.
        computed[f"psnr_{name}"] = lambda span=span: psnr(stack, wanted, data_range=span, mask=mask)  # type: ignore[misc]
        computed[f"ssim_{name}"] = lambda span=span: ssim(stack, wanted, data_range=span, mask=mask)  # type: ignore[misc]
        computed[f"vif_{name}"] = lambda span=span: vif(stack, wanted, data_range=span)  # type: ignore[misc]
    for key, compute in computed.items():
        try:
            found = compute().tolist()
        except ValueError as error:
            for name in names:
                figures[name].missing[key] = short_reason(error)
            continue
        for name, value in zip(names, found):
            figures[name].add(key, lambda value=value: value)  # type: ignore[misc]


def _tissue_errors(
    figures: Figures, image: np.ndarray, reference: np.ndarray, tissues: Mapping[str, np.ndarray]
) -> None:
    for tissue, mask in tissues.items():
        key = tissue_key(tissue)
        if (count := int(mask.sum())) < LEAST_PIXELS:
            why = f"{count or 'no'} pixels of {tissue}"
            figures.missing |= {f"bias_{key}": why, f"std_{key}": why}
            continue
        found = hu_error(image, reference, mask)
        figures.values |= {f"bias_{key}": found.bias, f"std_{key}": found.std}


def _patches(image: np.ndarray, corners: list[tuple[int, int]]) -> np.ndarray:
    return patches_at(image, corners) if corners else np.zeros((0, 1, 1), dtype=np.float32)


def _noise(figures: Figures, image: np.ndarray, patches: np.ndarray, tissues: Mapping[str, np.ndarray]) -> None:
    if len(patches) == 0:
        figures.missing |= dict.fromkeys(("noise", "cnr_fat"), "no uniform soft tissue")
        return
    level = float(np.sqrt(patches.astype(np.float64).var(axis=(1, 2)).mean()))
    figures.values["noise"] = level
    soft, fat = tissues["soft tissue"], tissues["fat"]
    if min(soft.sum(), fat.sum()) < LEAST_PIXELS:
        figures.missing["cnr_fat"] = "too few pixels of soft tissue or fat"
        return
    contrast = abs(float(image[soft].mean(dtype=np.float64) - image[fat].mean(dtype=np.float64)))
    figures.add("cnr_fat", lambda: contrast / level if level > 0 else np.inf)


def _leakage(figures: Figures, removed: np.ndarray, reference: np.ndarray) -> None:
    noise, wanted = (torch.from_numpy(np.ascontiguousarray(each))[None, None].float() for each in (removed, reference))
    if float(noise.std()) == 0:
        figures.missing |= dict.fromkeys(("leakage", "leakage_local"), "nothing was removed")
        return
    figures.add("leakage", lambda: edge_correlation(noise, wanted).item())

    def worst() -> float:
        local = local_edge_correlation(noise, wanted)
        local = local[local.isfinite()]
        if local.numel() == 0:
            raise ValueError("no edges")
        return float(local.quantile(WORST_PLACES))

    figures.add("leakage_local", worst)


def _disagreement(figures: Figures, disagreement: np.ndarray, error: np.ndarray, body: np.ndarray) -> np.ndarray:
    pixels = np.stack([disagreement[body], np.abs(error[body])]).astype(np.float32)
    figures.add("disagreement", lambda: rank_correlation(pixels[0], pixels[1]))
    step = max(1, -(-pixels.shape[1] // PIXELS_KEPT))
    return pixels[:, ::step]
