"""Projection and back projection in torch: any device, batched, differentiable.

It samples the same points as the compiled code, with ``grid_sample``, a few views at a time so that memory stays bounded.
While gradients are recorded, each part is recomputed in the backward pass instead of being stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .geometry import FanBeam, Geometry, PixelSize

SAMPLES_AT_ONCE = 2**26
"""Interpolations in one call of grid_sample: 256 MiB of results in float32."""


def project_tensor(image: torch.Tensor, pixel: PixelSize, geometry: Geometry) -> torch.Tensor:
    """Line integrals of ``image`` (..., x, y), floating point: (..., views, channels); see :func:`~.projector.project`."""
    from .projector import check_source_outside

    values = _floating(image, "an image (..., x, y)")
    nx, ny = values.shape[-2:]
    check_source_outside((nx, ny), pixel, geometry)
    batch = values.reshape(1, -1, nx, ny)
    step = max(1, SAMPLES_AT_ONCE // (geometry.channels * max(nx, ny) * batch.shape[1]))
    fan, distance = _tensors(batch, geometry.fan_angles, geometry.positions_mm)
    (angles,) = _tensors(batch, geometry.angles)

    def part(pixels: torch.Tensor, start: int) -> torch.Tensor:
        normal = angles[start : start + step, None] + fan
        grid, length = _ray_points(normal, distance, (nx, ny), pixel)
        samples = functional.grid_sample(pixels, grid.to(pixels.dtype), "bilinear", "zeros", align_corners=False)
        return samples.sum(dim=-1).unflatten(-1, normal.shape) * length.to(pixels.dtype)

    views = [_run(part, batch, start) for start in range(0, geometry.views, step)]
    return torch.cat(views, dim=2).reshape(*values.shape[:-2], geometry.views, geometry.channels)


def _ray_points(
    normal: torch.Tensor, distance: torch.Tensor, shape: tuple[int, int], pixel: PixelSize
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points where rays (views, channels) cross the pixel lines of their dominant axis, and the distance between two.

    Returns:
        Grid (1, views * channels, lines, 2) in the coordinates of grid_sample (last axis: y index, x index, scaled to
        [-1, 1]), with as many lines as the longer side has pixels; distance (views, channels) in mm.
    """
    (nx, ny), (dx, dy) = shape, pixel
    cosine, sine = torch.cos(normal), torch.sin(normal)
    steep = cosine.abs() * dx >= sine.abs() * dy
    line = torch.arange(max(nx, ny), dtype=normal.dtype, device=normal.device)
    # A divisor of (nearly) 0 only occurs for the axis that is not used.
    safe_cosine, safe_sine = torch.where(steep, cosine, 1.0), torch.where(steep, 1.0, sine)
    at_y = (line - (ny - 1) / 2) * dy
    at_x = (line - (nx - 1) / 2) * dx
    x = ((distance - at_y[:, None, None] * sine) / safe_cosine / dx) + (nx - 1) / 2
    y = ((distance - at_x[:, None, None] * cosine) / safe_sine / dy) + (ny - 1) / 2
    line = line[:, None, None].expand_as(x)
    x, y = torch.where(steep, x, line), torch.where(steep, line, y)
    grid = torch.stack([_scaled(y, ny), _scaled(x, nx)], dim=-1).permute(1, 2, 0, 3).flatten(0, 1)[None]
    length = torch.where(steep, dy / safe_cosine.abs(), dx / safe_sine.abs())
    return grid, length


def back_project_tensor(
    filtered: torch.Tensor, geometry: Geometry, shape: tuple[int, int], pixel: PixelSize
) -> torch.Tensor:
    """Back projection of ``filtered`` (..., views, channels): (..., nx, ny); see :func:`~.fbp.back_project`."""
    values = _floating(filtered, "a sinogram (..., views, channels)")
    nx, ny = shape
    batch = values.reshape(1, -1, geometry.views, geometry.channels)
    step = max(1, SAMPLES_AT_ONCE // (nx * ny * batch.shape[1]))
    x, y, angles = _tensors(
        batch, (np.arange(nx) - (nx - 1) / 2) * pixel[0], (np.arange(ny) - (ny - 1) / 2) * pixel[1], geometry.angles
    )

    def part(views: torch.Tensor, start: int) -> torch.Tensor:
        views = views[:, :, start : start + step]
        count = views.shape[2]
        channel, weight = _pixel_channels(x[:, None], y, angles[start : start + step, None, None], geometry)
        view = torch.arange(count, dtype=channel.dtype, device=channel.device)[:, None, None].expand_as(channel)
        grid = torch.stack([_scaled(channel, geometry.channels), _scaled(view, count)], dim=-1).reshape(1, -1, ny, 2)
        samples = functional.grid_sample(views, grid.to(views.dtype), "bilinear", "zeros", align_corners=False)
        return (samples.unflatten(2, (count, nx)) * weight.to(views.dtype)).sum(dim=2)

    image = torch.zeros((1, batch.shape[1], nx, ny), dtype=batch.dtype, device=batch.device)
    for start in range(0, geometry.views, step):
        image = image + _run(part, batch, start)
    return (image * (math.pi / geometry.views)).reshape(*values.shape[:-2], nx, ny)


def _pixel_channels(
    x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor, geometry: Geometry
) -> tuple[torch.Tensor, torch.Tensor]:
    """Channel index at which the pixel at (x, y) mm is seen at each angle, and its weight; (views, nx, ny)."""
    across = x * torch.cos(angle) + y * torch.sin(angle)
    middle = (geometry.channels - 1) / 2
    if not isinstance(geometry, FanBeam):
        return across / geometry.channel_spacing_mm + middle, torch.ones_like(across)
    along = geometry.source_isocentre_mm + x * torch.sin(angle) - y * torch.cos(angle)
    per_channel = geometry.channel_spacing_mm / geometry.source_detector_mm
    if geometry.detector == "curved":
        return torch.atan2(across, along) / per_channel + middle, 1 / (along**2 + across**2)
    return across / along / per_channel + middle, 1 / along**2


def filter_tensor(sinogram: torch.Tensor, before: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """Views of ``sinogram`` (..., channels) times ``before`` (channels,), filtered with ``response``; the same shape."""
    values = _floating(sinogram, "a sinogram (..., views, channels)")
    # Copied, because the response is cached and read-only.
    weight, transfer = (torch.tensor(part, dtype=values.dtype, device=values.device) for part in (before, response))
    length = 2 * (response.size - 1)
    spectrum = torch.fft.rfft(values * weight, n=length, dim=-1) * transfer
    return torch.fft.irfft(spectrum, n=length, dim=-1)[..., : values.shape[-1]]


def _floating(values: torch.Tensor, what: str) -> torch.Tensor:
    if not values.is_floating_point() or values.ndim < 2:
        raise ValueError(f"Expected {what} in floating point but got {values.dtype} with shape {tuple(values.shape)}.")
    # A subclass such as MetaTensor would carry its affine through every operation.
    values = values.as_subclass(torch.Tensor)
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


def _tensors(like: torch.Tensor, *arrays: np.ndarray) -> list[torch.Tensor]:
    """Arrays on the device of ``like``; coordinates are computed in float64 where the device has it."""
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    return [torch.as_tensor(array, dtype=dtype, device=like.device) for array in arrays]


def _scaled(index: torch.Tensor, count: int) -> torch.Tensor:
    """Convert indices to the coordinates of grid_sample: -1/2 becomes -1, count - 1/2 becomes 1."""
    return (index * 2 + 1) / count - 1


def _run(part: Callable[[torch.Tensor, int], torch.Tensor], values: torch.Tensor, start: int) -> torch.Tensor:
    if values.requires_grad and torch.is_grad_enabled():
        return checkpoint(part, values, start, use_reentrant=False)
    return part(values, start)
