"""A volume in memory, denoised."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ct_cncl.pipeline.inference.streaming import Settings, apply_network, batch_for
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.series.values import RESULT, changed, keep_padding


def denoise_volume(volume: Any, weights: Weights, settings: Settings) -> Any:
    """Denoise slices in memory.

    Args:
        volume: (columns, rows, slices) HU, NumPy array or tensor of any real type.
        weights: the network.
        settings: how it is applied; branches are not saved.

    Returns:
        The same kind, type and shape; integers are rounded to nearest, and kept within their type.

    Raises:
        ValueError: another number of axes, or values that are not finite.
    """
    array = volume.detach().cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    if array.ndim != 3 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"Expected finite HU (columns, rows, slices), but got shape {array.shape}. Split or mend the volume."
        )
    result = array.copy()
    half, last = weights.slices // 2, array.shape[2] - 1
    size = batch_for(weights, (array.shape[0], array.shape[1]), settings)
    for start in range(0, array.shape[2], size):
        numbers = range(start, min(start + size, array.shape[2]))
        around = [np.clip(np.arange(number - half, number + half + 1), 0, last) for number in numbers]
        stack = np.stack([np.moveaxis(array[..., each], -1, 0) for each in around]).astype(np.float32)
        images = apply_network(weights, stack, settings)[RESULT]
        for place, number in enumerate(numbers):
            hu = stack[place, half]
            own = keep_padding({RESULT: images[place]}, hu, padding_mask(hu))[RESULT]
            result[..., number], _ = changed(array[..., number], own.astype(np.float64) - hu, array.dtype)
    return torch.from_numpy(result).to(volume.device) if isinstance(volume, torch.Tensor) else result
