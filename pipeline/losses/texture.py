"""Texture and content as an encoder sees them: Gram matrices, and the features themselves.

Everything is computed in float32, also under mixed precision: squares of features overflow float16 and lose almost all
precision in bfloat16.
"""

from __future__ import annotations

import torch
from torch.nn import functional

SMOOTH = 1e-4
"""Smaller differences of Gram matrices count by their square; noise of 25 HU makes one of about 1 (``noise_response``)."""

_FLOOR = 0.01
"""Norm of the texture of 2.5 HU of noise: it keeps relative distances small where there is less (air, padding)."""


def gram_matrices(features: torch.Tensor, *, window: int | None = None, centred: bool = False) -> torch.Tensor:
    """Mean products of every two channels, ``G_ij = mean over positions of f_i f_j / C``.

    Since it is a mean over positions, it does not depend on the size of the patch.

    Args:
        features: (B, C, H, W).
        window: side, in features, of the squares over each of which the mean is taken. Features at the edges that fill no
            square are left out; a map smaller than a square is one square. None takes the whole map.
        centred: subtract the mean over the square first, which gives covariances.

    Returns:
        (B, squares, C, C), float32 or float64.

    Source: Gatys, Ecker and Bethge, CVPR 2016, eq. 3, normalised.

    >>> gram_matrices(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)).tolist()
    [[[[0.5, 1.0], [1.0, 2.0]]]]
    >>> gram_matrices(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), centred=True).item()
    1.0
    >>> gram_matrices(torch.ones(3, 2, 9, 8), window=4).shape
    torch.Size([3, 4, 2, 2])
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        batch, channels, height, width = features.shape
        high, wide = (side if window is None else min(window, side) for side in (height, width))
        rows, columns = height // high, width // wide
        squares = features[..., : rows * high, : columns * wide].reshape(batch, channels, rows, high, columns, wide)
        flat = squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels, high * wide)
        if centred:
            flat = flat - flat.mean(dim=-1, keepdim=True)
        return flat @ flat.transpose(-1, -2) / (channels * high * wide)


def texture_distance(
    features: torch.Tensor, target: torch.Tensor, *, window: int | None = None, centred: bool = False
) -> torch.Tensor:
    """Frobenius norm of the difference of the Gram matrices of two feature maps, averaged over images and squares.

    Since ``gram_matrices`` divides by C, layers of 64 and of 512 channels count about alike. Gatys' loss squares the norm;
    this one does not, because the square grows with the fourth power of the contrast, and the few patches with bone in air
    would outweigh all soft tissue 100-fold. Below :data:`SMOOTH` it is quadratic, with a gradient of 0 for equal maps.

    Level and contrast weigh more in Gram matrices than noise does. ``centred`` compares covariances instead and divides each
    square's difference by the norm of its target: the level drops out, and a square with bone counts no more than one of
    liver. In tissue without structure the distance is then ``|noise power of features / target's - 1|``, which is 1 if all
    noise is gone. The squares must be small compared with organs.

    Args:
        features: (B, C, H, W).
        target: the same shape.
        window: see :func:`gram_matrices`.
        centred: compare covariances, and divide by the norm of the target's (plus :data:`_FLOOR`).

    Returns:
        Scalar, 0 for equal maps.

    >>> round(texture_distance(torch.ones(1, 1, 2, 2), 2 * torch.ones(1, 1, 2, 2)).item(), 3)
    3.0
    """
    wanted = gram_matrices(target, window=window, centred=centred)
    difference = gram_matrices(features, window=window, centred=centred) - wanted
    squared = difference.square().sum(dim=(-1, -2))
    distance = squared / (torch.sqrt(squared + SMOOTH**2) + SMOOTH)  # sqrt(s + e^2) - e, without cancellation
    if centred:
        distance = distance / (wanted.square().sum(dim=(-1, -2)).sqrt() + _FLOOR)
    return distance.mean()


def content_distance(features: torch.Tensor, target: torch.Tensor, *, norm: str = "l1") -> torch.Tensor:
    """Mean absolute ("l1") or squared ("l2") difference of two feature maps: the perceptual loss.

    Args:
        features: (B, C, H, W).
        target: the same shape.
        norm: "l1" or "l2".

    Returns:
        Scalar, 0 for equal maps.

    Raises:
        ValueError: the norm is unknown.

    Source: Johnson, Alahi and Fei-Fei, ECCV 2016, eq. 2 (l2); Wang et al. (ESRGAN), ECCV workshops 2018, sec. 3.2 (l1).

    >>> content_distance(torch.zeros(1, 1, 2, 2), 3 * torch.ones(1, 1, 2, 2), norm="l2").item()
    9.0
    """
    if norm not in {"l1", "l2"}:
        raise ValueError(f"Expected norm 'l1' or 'l2', but got {norm!r}.")
    with torch.autocast(features.device.type, enabled=False):
        if features.dtype != torch.float64:
            features, target = features.float(), target.float()
        return functional.l1_loss(features, target) if norm == "l1" else functional.mse_loss(features, target)
