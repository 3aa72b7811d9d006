"""Visual information fidelity in the pixel domain: how much of the reference's information an image preserves."""

from __future__ import annotations

import torch

from ct_cncl.pipeline.metrics.image_quality import prepared
from ct_cncl.pipeline.metrics.local_moments import Moments, gaussian_window, local_moments, weighted_means
from ct_cncl.transforms.common.hu import Window

SIGMA_N_SQ = 2.0
"""Variance of the visual system's noise, in squared grey levels."""
_LEVELS = 255.0
"""Grey levels of the whole data range, the scale for which :data:`SIGMA_N_SQ` was chosen."""
SCALES = 4
_EPS = 1e-10


def vif(image: torch.Tensor, reference: torch.Tensor, *, data_range: float | Window) -> torch.Tensor:
    """Visual information fidelity in the pixel domain (VIFp), for each slice.

    At four scales with Gaussian windows of N = 17, 9, 5, 3 pixels and sigma N/5, ``g = cov / var(reference)`` and
    ``s = var(image) - g cov`` are the gain and the noise of a local channel from reference to image:

        VIF = sum log10(1 + g^2 var(reference) / (s + 2)) / sum log10(1 + var(reference) / 2)

    Images are scaled so that the data range has 255 grey levels; the 2 is sigma_n^2 on that scale. The value depends on the
    data range: in a narrow window, the same noise in HU counts more. Noise of the reference counts as information.

    Args:
        image: (B, 1, H, W) with sides of at least 41, HU.
        reference: the same shape, HU.
        data_range: in HU, or a window, to which both images are clipped.

    Returns:
        (B,): 1 for equal images, above 1 if contrast was enhanced.

    Raises:
        ValueError: shapes differ, values are not finite, the data range is not positive, sides are below 41, or the reference
            holds no information (it is constant after clipping).

    Source: Sheikh and Bovik 2006, IEEE TIP 15(2):430; the pixel-domain version of its authors' ``vifp_mscale``.

    >>> slices = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 400
    >>> round(vif(slices, slices, data_range=400.0).item(), 4)
    1.0
    """
    image, reference, length = prepared(image, reference, data_range)
    if min(image.shape[-2:]) < 41:
        raise ValueError(f"Expected slices with sides of at least 41 pixels, but got {tuple(image.shape[-2:])}.")
    x, y = image * (_LEVELS / length), reference * (_LEVELS / length)
    kept = torch.zeros(image.shape[0], dtype=torch.float64, device=image.device)
    whole = torch.zeros_like(kept)
    for scale in range(SCALES):
        size = 2 ** (SCALES - scale) + 1
        weights = gaussian_window(size, size / 5).to(x)
        if scale > 0:
            x, y = weighted_means(torch.stack([x, y]), weights)[..., ::2, ::2]
        in_image, in_reference = _information(local_moments(x, y, weights))
        kept += in_image
        whole += in_reference
    if (whole < 1e-6).any():
        raise ValueError(
            "Expected a reference with contrast, but got one that is constant within the data range. Leave the slice out."
        )
    return (kept / whole).float()


def _information(m: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    """Information of one scale in the image and in the reference, in units of log10, each (B,).

    A constant region of the reference holds no information; where the image is anticorrelated with it, none is preserved.
    """
    gain = m.covariance / (m.variance_y + _EPS)
    noise = m.variance_x - gain * m.covariance
    flat = m.variance_y < _EPS
    against = gain < 0
    gain = gain.masked_fill(flat | (m.variance_x < _EPS) | against, 0.0)
    noise = torch.where(flat | against, m.variance_x, noise).clamp(min=_EPS)
    in_image = (1 + gain**2 * m.variance_y / (noise + SIGMA_N_SQ)).log10()
    in_reference = (1 + m.variance_y / SIGMA_N_SQ).log10()
    return tuple(part.flatten(1).sum(1, dtype=torch.float64) for part in (in_image, in_reference))  # type: ignore[return-value]
