"""Denoising a volume in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ct_cncl.pipeline.inference.streaming import Settings, apply_network, batch_for
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.series.derivation import REMOVED
from ct_cncl.transforms.series.values import RESULT, changed, keep_padding


def denoise_volume(volume: Any, weights: Weights, settings: Settings) -> Any:
    """Denoise slices in memory.

    Args:
        volume: HU, (columns, rows, slices), a NumPy array or tensor of any real type.
        weights: the network.
        settings: how to apply the network; maps are not saved.

    Returns:
        A volume of the same kind, data type and shape. Integers are rounded to nearest and clipped to the range of their type.

    Raises:
        ValueError: the volume does not have three axes, or holds values that are not finite.
    """
    array = volume.detach().cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    result = denoised_kinds(array, weights, Settings(settings.strength, (), settings.batch_size))[RESULT]
    return torch.from_numpy(result).to(volume.device) if isinstance(volume, torch.Tensor) else result


def denoised_kinds(
    array: np.ndarray, weights: Weights, settings: Settings, *, tick: Callable[[int], object] | None = None
) -> dict[str, np.ndarray]:
    """Denoise slices in memory, and return all results by kind.

    Args:
        array: HU, (columns, rows, slices), of any real type, oriented as by :func:`ct_cncl.transforms.series.slices_last`.
        weights: the network.
        settings: how to apply the network, and which maps to return.
        tick: called with the number of slices done since the last call.

    Returns:
        "denoised" in the array's type, with integers rounded to nearest and clipped to its range; maps as float32 HU, 0 on padding.

    Raises:
        ValueError: the array does not have three axes, or the array or the network's output holds values that are not finite.
    """
    if array.ndim != 3 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"Expected finite HU (columns, rows, slices), but got shape {array.shape}. Split or correct the volume."
        )
    results = {kind: np.empty_like(array, dtype=None if kind == RESULT else np.float32) for kind in settings.kinds}
    half, last = weights.slices // 2, array.shape[2] - 1
    size = batch_for(weights, (array.shape[0], array.shape[1]), settings)
    for start in range(0, array.shape[2], size):
        numbers = range(start, min(start + size, array.shape[2]))
        around = [np.clip(np.arange(number - half, number + half + 1), 0, last) for number in numbers]
        stack = np.stack([np.moveaxis(array[..., each], -1, 0) for each in around]).astype(np.float32)
        images = apply_network(weights, stack, settings)
        if not all(np.isfinite(image).all() for image in images.values()):
            raise ValueError("Expected finite HU from the network, but got NaN or infinity. Use other weights.")
        for place, number in enumerate(numbers):
            hu, before = stack[place, half], array[..., number]
            own = keep_padding({kind: image[place] for kind, image in images.items()}, hu, padding_mask(hu))
            after, _ = changed(before, own[RESULT].astype(np.float64) - hu, array.dtype)
            own |= {RESULT: after, REMOVED: before.astype(np.float64) - after}
            for kind, result in results.items():
                result[..., number] = own[kind]
        if tick is not None:
            tick(len(numbers))
    return results
