"""Contrast kept, of functions whose response is known; inserts as they are meant to be; where they are put."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ct_cncl.pipeline.metrics.inserts import (
    APART_MM,
    INSERTS,
    Insert,
    Place,
    contrasts_kept,
    insert_image,
    insert_places,
    with_inserts,
)

PIXEL = (0.7, 0.8)


@pytest.mark.parametrize("spiculated", [False, True])
@pytest.mark.parametrize("edge_mm", [0.0, 1.5])
def test_an_insert_holds_its_contrast_over_its_area(spiculated, edge_mm):
    """Round and spiculated ones alike, so that neither is told by its mean. A linear edge of width w adds pi w^2 / 12 to a disc's area."""
    image = insert_image(Insert(-20.0, 8.0, edge_mm, spiculated), PIXEL)
    area = math.pi * 4.0**2 + (0 if spiculated else math.pi * edge_mm**2 / 12)
    assert image.sum() * PIXEL[0] * PIXEL[1] == pytest.approx(-20 * area, rel=0.02)
    assert image.min() == pytest.approx(-20)
    assert not any(side.any() for side in (image[0], image[-1], image[:, 0], image[:, -1]))


def test_the_inserts_are_the_four_of_the_goal():
    assert [one.name for one in INSERTS] == ["14 HU, 3 mm", "7 HU, 5 mm", "5 HU, 7 mm", "3 HU, 10 mm"]


def body(slices=3):
    inside = np.hypot(*(np.mgrid[-100:100, -100:100] * 0.8)) < 70
    return np.repeat(np.where(inside, 40.0, -900.0)[..., None], slices, axis=2)


def test_places_are_of_seed_and_slice_alone_in_tissue_and_far_apart():
    noisy = body() + np.random.default_rng(0).normal(0, 10, (200, 200, 3))
    places = insert_places(noisy, PIXEL, seed=3)
    assert len(places) >= 15
    assert {place.kind for place in places} == {0, 1, 2, 3}
    assert places != insert_places(noisy, PIXEL, seed=4)
    assert [one for one in places if one.slice < 2] == insert_places(noisy[..., :2], PIXEL, seed=3)
    for k in range(3):
        own = np.array([(p.x * PIXEL[0], p.y * PIXEL[1]) for p in places if p.slice == k])
        gaps = np.hypot(*(own[:, None] - own[None]).transpose(2, 0, 1))
        assert gaps[~np.eye(len(own), dtype=bool)].min() >= APART_MM
    added = with_inserts(np.zeros(noisy.shape), places, INSERTS, PIXEL)
    assert not added[body() < 0].any()


def test_where_nothing_fits_there_is_nothing():
    assert insert_places(np.full((60, 60, 2), -900.0), PIXEL) == []


def test_a_blur_keeps_what_a_blur_of_the_insert_keeps():
    """A linear method has one response, whatever noise and anatomy are around."""
    noisy = body() + np.random.default_rng(1).normal(0, 25, (200, 200, 3))
    places = insert_places(noisy, PIXEL)
    plain, inserted = (gaussian_filter(v, (2, 2, 0)) for v in (noisy, with_inserts(noisy, places, INSERTS, PIXEL)))
    found = contrasts_kept(plain, inserted, places, INSERTS, PIXEL)
    for kind, one in enumerate(INSERTS):
        image = np.pad(insert_image(one, PIXEL), 12)
        disc = image >= one.contrast_hu / 2
        expected = gaussian_filter(image, 2)[disc].mean() / image[disc].mean()
        own = found[[n for n, place in enumerate(places) if place.kind == kind]]
        assert own == pytest.approx(expected, abs=1e-3)


def test_an_insert_at_the_border_is_cut_off():
    volume = np.zeros((20, 20, 1))
    place = [Place(0, 0, 10, 3)]
    found = with_inserts(volume, place, INSERTS, (1.0, 1.0))
    assert found[0, 10, 0] == pytest.approx(3.0)
    assert contrasts_kept(volume, found, place, INSERTS, (1.0, 1.0)) == pytest.approx([1.0])
