"""Lesions are where the record says, as large and as dark."""

from __future__ import annotations

import numpy as np
import pytest

from ct_cncl.transforms.phantom import TISSUES, Phantom, anatomical_phantom


def distances(phantom: Phantom, centre: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm of every voxel (x, y, z) from ``centre`` in world coordinates, through the affine."""
    index = np.stack([*np.indices(phantom.hu.shape), np.ones(phantom.hu.shape)])
    world = np.tensordot(phantom.affine, index, axes=1)[:3]
    return np.sqrt(sum((w - c) ** 2 for w, c in zip(world, centre, strict=True)))


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [anatomical_phantom(seed, slices=3, region="abdomen") for seed in (1, 6, 22)]


def test_number_and_range(phantoms):
    for phantom in phantoms:
        assert 2 <= len(phantom.lesions) <= 6
        for lesion in phantom.lesions:
            assert 3 <= lesion.radius_mm <= 12
            assert -40 <= lesion.contrast_hu <= -8 or 8 <= lesion.contrast_hu <= 30


def test_contrast_against_the_liver_around(phantoms):
    for phantom in phantoms:
        px = -phantom.affine[0, 0]
        for lesion in phantom.lesions:
            r = distances(phantom, lesion.centre)
            core = r < lesion.radius_mm - 1.2 * px
            rim = (r > lesion.radius_mm + 2 * px) & (r < lesion.radius_mm + 9)
            rim &= phantom.labels == TISSUES["liver"]
            around = np.median(phantom.hu[rim])
            assert core.sum() >= 3
            assert phantom.hu[core].mean() - around == pytest.approx(lesion.contrast_hu, abs=3.5)


def test_radius_and_place_of_the_labels(phantoms):
    for phantom in phantoms:
        px = -phantom.affine[0, 0]
        inverse = np.linalg.inv(phantom.affine)
        for lesion in phantom.lesions:
            voxel = inverse @ [*lesion.centre, 1]
            k = int(np.rint(voxel[2]))
            off = abs(voxel[2] - k) * phantom.affine[2, 2]
            assert off <= 1.0 + 1e-6
            cut = np.sqrt(lesion.radius_mm**2 - off**2)
            x, y = np.indices(phantom.hu.shape[:2])
            near = np.hypot(x - voxel[0], y - voxel[1]) * px < lesion.radius_mm + 2.5
            disc = near & (phantom.labels[:, :, k] == TISSUES["lesion"])
            assert np.sqrt(disc.sum() / np.pi) * px == pytest.approx(cut, abs=0.5 * px)
            assert np.argwhere(disc).mean(axis=0) == pytest.approx(voxel[:2], abs=0.5)


def test_radius_by_the_hu_missing_or_added(phantoms):
    for phantom in phantoms:
        px = -phantom.affine[0, 0]
        for lesion in phantom.lesions:
            if abs(lesion.contrast_hu) < 15:
                continue  # texture of the liver would decide
            r = distances(phantom, lesion.centre)
            k = int(np.argmin(r.min(axis=(0, 1))))
            ring = (r > lesion.radius_mm + 2 * px) & (r < lesion.radius_mm + 9) & (phantom.labels == TISSUES["liver"])
            liver = np.median(phantom.hu[ring])
            dip = (phantom.hu[:, :, k] - liver)[r[:, :, k] < lesion.radius_mm + 1.5 * px]
            off = r[:, :, k].min()
            measured = np.sqrt(max(dip.sum(), 0) if lesion.contrast_hu > 0 else max(-dip.sum(), 0))
            measured *= px / np.sqrt(np.pi * abs(lesion.contrast_hu))
            cut = np.sqrt(max(lesion.radius_mm**2 - min(off, 1.0) ** 2, 0))
            assert measured == pytest.approx(cut, abs=1.6 * px)


def test_lesions_lie_in_the_liver_and_apart(phantoms):
    for phantom in phantoms:
        for lesion in phantom.lesions:
            r = distances(phantom, lesion.centre)
            shell = (r > lesion.radius_mm + 1) & (r < lesion.radius_mm + 2.2)
            around = phantom.labels[shell]
            assert np.isin(around, [TISSUES["liver"], TISSUES["vessel"]]).mean() > 0.9
        for i, one in enumerate(phantom.lesions):
            for other in phantom.lesions[i + 1 :]:
                assert np.linalg.norm(np.subtract(one.centre, other.centre)) > one.radius_mm + other.radius_mm + 2.9


def test_every_lesion_voxel_belongs_to_a_listed_lesion(phantoms):
    for phantom in phantoms:
        claimed = np.zeros(phantom.hu.shape, bool)
        for lesion in phantom.lesions:
            claimed |= distances(phantom, lesion.centre) < lesion.radius_mm - phantom.affine[0, 0]
        assert not ((phantom.labels == TISSUES["lesion"]) & ~claimed).any()


def test_no_liver_no_lesions():
    phantom = anatomical_phantom(9, slices=1, size=64, region="chest")
    assert not (phantom.labels == TISSUES["liver"]).any()
    assert phantom.lesions == ()
