"""Ellipses whose line integrals are known in closed form, and their pixel images."""

import numpy as np

SUPERSAMPLING = 8


def coordinates(shape, pixel_mm, factor=1):
    """x (n, 1) and y (1, m) of pixel centres in mm, on a grid refined ``factor`` times."""
    axes = []
    for n, side in zip(shape, pixel_mm, strict=True):
        axes.append((np.arange(n * factor) - (n * factor - 1) / 2) * side / factor)
    return axes[0][:, None], axes[1][None, :]


def ellipse_image(shape, pixel_mm, ellipses):
    """Sum of ellipses (x0, y0, a, b, angle, value), each pixel the mean over its area; float64 (x, y)."""
    x, y = coordinates(shape, pixel_mm, SUPERSAMPLING)
    fine = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING))
    for x0, y0, a, b, angle, value in ellipses:
        u = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        v = -(x - x0) * np.sin(angle) + (y - y0) * np.cos(angle)
        fine += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return fine.reshape(shape[0], SUPERSAMPLING, shape[1], SUPERSAMPLING).mean(axis=(1, 3))


def ellipse_sinogram(geometry, ellipses):
    """Line integrals (views, channels) of the same ellipses: 2 v a b sqrt(s^2 - t^2) / s^2 (Kak and Slaney, 3.1)."""
    theta, t = geometry.angles[:, None] + geometry.fan_angles, geometry.positions_mm[None, :]
    total = np.zeros((geometry.views, geometry.channels))
    for x0, y0, a, b, angle, value in ellipses:
        square = (a * np.cos(theta - angle)) ** 2 + (b * np.sin(theta - angle)) ** 2
        offset = t - x0 * np.cos(theta) - y0 * np.sin(theta)
        total += 2 * value * a * b * np.sqrt(np.maximum(square - offset**2, 0)) / square
    return total


def water_cylinder(size, pixel_mm, radius_mm):
    """HU (size, size): water in air."""
    return ellipse_image((size, size), (pixel_mm, pixel_mm), [(0, 0, radius_mm, radius_mm, 0, 1000.0)]) - 1000.0


def central(size, pixel_mm, radius_mm):
    """bool (size, size), a disc about the centre."""
    x, y = coordinates((size, size), (pixel_mm, pixel_mm))
    return np.hypot(x, y) < radius_mm
