import numpy as np
import pytest
import torch

from ct_cncl.transforms.patches.lesions import (
    Lesion,
    RandLesions,
    RandLesionsd,
    coverages,
    lesion_hu,
    lesion_weights,
    lesions_hu,
)

TISSUE = torch.full((1, 64, 64), 50.0)


def test_a_lesion_has_its_contrast_its_size_and_a_soft_edge():
    disc = lesion_hu(Lesion(32.0, 30.0, (12.0, 6.0), 0.0, -20.0), (64, 64))
    assert disc.dtype == torch.float32
    assert float(disc[32, 30]) == pytest.approx(-20, abs=0.01)
    assert float(disc[32 + 12, 30]) == pytest.approx(-10, abs=0.01)  # along the rows
    assert float(disc[32, 30 + 6]) == pytest.approx(-10, abs=0.01)
    assert float(disc[32 + 15, 30].abs()) < 0.1
    assert float(disc.sum()) == pytest.approx(-20 * np.pi * 12 * 6, rel=0.03)
    turned = lesion_hu(Lesion(32.0, 30.0, (12.0, 6.0), np.pi / 2, -20.0), (64, 64))
    assert float(turned[32, 30 + 12]) == pytest.approx(-10, abs=0.01)


def test_draws_keep_their_ranges():
    transform = RandLesions(1.0, contrast_hu=(5, 40), radius=(2, 10), most=3).set_random_state(seed=0)
    found = []
    for _ in range(300):
        transform.randomize(TISSUE)
        assert 1 <= len(transform.lesions) <= 3
        found += transform.lesions
    contrast = np.array([lesion.contrast_hu for lesion in found])
    radii = np.array([lesion.radii for lesion in found])
    assert 5 <= np.abs(contrast).min() < 6
    assert 39 < np.abs(contrast).max() <= 40
    assert np.mean(contrast > 0) == pytest.approx(0.5, abs=0.06)
    assert radii.min() >= 2
    assert radii.max() <= 10
    assert np.median(radii) == pytest.approx(np.sqrt(20), rel=0.1)
    assert np.median(np.abs(contrast)) == pytest.approx(np.sqrt(200), rel=0.15)  # log-uniform: half are below 14 HU
    spicules = np.array([lesion.spicules for lesion in found])
    assert np.mean(spicules > 0) == pytest.approx(0.5, abs=0.06)
    assert set(spicules) == {0, *range(5, 13)}
    edges = [lesion.edge for lesion in found]
    assert 0.5 <= min(edges) < 0.6 < 1.9 < max(edges) <= 2


def test_spicules_reach_out_of_the_ellipse_and_a_wide_edge_is_soft():
    smooth = Lesion(32.0, 32.0, (10.0, 10.0), 0.0, 10.0)
    rayed = lesion_hu(smooth._replace(spicules=6, spicule_length=0.8), (65, 65))
    assert float(rayed[32 + 17, 32]) == pytest.approx(10, abs=0.5)  # along a ray, inside its end at 18
    between = np.deg2rad(30)
    outside = rayed[round(32 + 13 * np.cos(between)), round(32 + 13 * np.sin(between))]
    assert float(outside.abs()) < 0.1
    angles = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    area = 0.5 * np.mean((10 * (1 + 0.8 * (0.5 + 0.5 * np.cos(6 * angles)) ** 3)) ** 2) * 2 * np.pi
    assert float(rayed.sum()) == pytest.approx(10 * area, rel=0.03)
    soft = lesion_hu(smooth._replace(edge=4.0), (65, 65))
    assert float(soft[32 + 12, 32]) == pytest.approx(10 / (1 + np.exp(2)), rel=0.01)


def test_they_lie_in_soft_tissue():
    image = torch.full((1, 64, 64), -1000.0)
    image[:, :, 32:] = 50.0
    transform = RandLesions(1.0).set_random_state(seed=0)
    for _ in range(100):
        transform.randomize(image)
        assert all(lesion.column > 31 for lesion in transform.lesions)
    transform.randomize(torch.full((1, 64, 64), -1000.0))
    assert transform.lesions == []


def test_image_and_target_get_the_same_and_so_does_a_batch():
    batch = TISSUE.expand(8, 1, 64, 64)
    noise = torch.randn(8, 1, 64, 64)
    transform = RandLesionsd(["image", "label"], 0.6).set_random_state(seed=5)
    out = transform({"image": batch + noise, "label": batch})
    torch.testing.assert_close(out["image"] - out["label"], noise, atol=1e-4, rtol=0)
    changed = [bool((image != TISSUE).any()) for image in out["label"]]
    assert 0 < sum(changed) < 8
    transform.set_random_state(seed=5)
    for number in range(8):
        alone = transform({"image": batch[number] + noise[number], "label": batch[number]})
        assert torch.equal(alone["label"], out["label"][number])


def test_switched_off_it_changes_nothing_and_bad_ranges_are_refused():
    assert RandLesionsd("label", 0.0)({"label": TISSUE})["label"] is TISSUE
    with pytest.raises(ValueError, match="two ordered numbers above 0"):
        RandLesions(contrast_hu=(0, 5))
    with pytest.raises(ValueError, match="most of at least 1"):
        RandLesions(most=0)


def test_a_weight_is_that_of_a_lesions_pixels_and_multiplies_what_is_there():
    batch = TISSUE.expand(6, 1, 64, 64)
    air = torch.ones(6, 1, 64, 64)
    air[..., :32] = 0.25
    transform = RandLesionsd(["image", "label"], 0.6, weight=5.0).set_random_state(seed=5)
    out = transform({"image": batch, "label": batch, "weight": air})
    for label, weight, before in zip(out["label"], out["weight"], air):
        changed = (label - TISSUE).abs()
        inside = changed > 0.98 * changed.max() if changed.max() > 0 else torch.zeros_like(changed, dtype=torch.bool)
        torch.testing.assert_close(weight[changed < 1e-4], before[changed < 1e-4], atol=1e-3, rtol=0)
        torch.testing.assert_close(weight[inside], 5 * before[inside], atol=0.2, rtol=0)
    assert bool((out["weight"] == air).all(dim=(1, 2, 3)).any())  # one without lesions
    transform.set_random_state(seed=5)
    made = transform({"image": batch, "label": batch})["weight"]
    torch.testing.assert_close(made * air, out["weight"])
    transform.set_random_state(seed=5)
    alone = [transform({"image": one, "label": one})["weight"] for one in batch]
    assert torch.equal(torch.stack(alone), made)


def test_without_a_weight_none_are_made():
    assert "weight" not in RandLesionsd(["image", "label"], 1.0)({"image": TISSUE, "label": TISSUE})
    assert "weight" not in RandLesionsd(["image", "label"], 0.0, weight=5.0)({"image": TISSUE, "label": TISSUE})
    with pytest.raises(ValueError, match="above 0, but got 0"):
        RandLesionsd(["image", "label"], 1.0, weight=0)


def test_where_two_lesions_meet_their_contrasts_add_and_their_weights_do_not():
    two = [Lesion(32.0, 32.0, (8.0, 8.0), 0.0, -20.0), Lesion(32.0, 38.0, (8.0, 8.0), 0.0, 30.0)]
    covered = coverages(two, TISSUE)
    added, weights = lesions_hu(two, covered), lesion_weights(5.0, covered)
    for row, column, contrast in ((32, 35, 10.0), (32, 26, -20.0), (32, 44, 30.0)):
        assert float(added[row, column]) == pytest.approx(contrast, abs=0.5)
        assert float(weights[row, column]) == pytest.approx(5.0, abs=0.1)
