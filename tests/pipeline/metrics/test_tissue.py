import numpy as np
import pytest

from ct_cncl.pipeline.metrics import hu_error, tissue_masks, tissue_masks_from_labels
from ct_cncl.pipeline.metrics.tissue import TISSUE_HU, eroded
from ct_cncl.transforms.phantom import TISSUES, anatomical_phantom

LEVELS = {"air": -1000.0, "lung": -800.0, "fat": -100.0, "soft tissue": 50.0, "bone": 600.0}


def bands(width=40):
    """A slice of five bands of tissue, one beside the other."""
    return np.repeat(np.array(list(LEVELS.values())), width)[:, None] * np.ones((1, 60))


def test_each_tissue_is_found_where_it_is_and_away_from_its_borders():
    masks = tissue_masks(bands())
    for number, name in enumerate(LEVELS):
        rows = np.flatnonzero(masks[name].any(axis=1))
        assert len(rows) >= 32
        if number > 0:
            assert rows.min() > 40 * number  # never at a border
        if number < 4:
            assert rows.max() < 40 * (number + 1) - 1
    assert not (masks["air"] & masks["lung"]).any()


def test_a_perfect_result_of_a_noisy_reference_has_no_bias_but_naive_classes_find_one():
    """The result is the noise-free image: classes from single noisy pixels say that it is wrong by many HU."""
    clean = bands()
    reference = clean + np.random.default_rng(0).normal(0, 60, clean.shape)
    masks = tissue_masks(reference)
    assert abs(hu_error(clean, reference, masks["fat"]).bias) < 4  # 60 HU of noise over 1800 pixels: 1.4 HU
    naive = (reference >= TISSUE_HU["fat"][0]) & (reference <= TISSUE_HU["fat"][1])
    assert abs(hu_error(clean, reference, naive).bias) > 6


def test_bias_and_spread_are_those_put_in():
    reference = bands(width=80)
    image = reference + np.random.default_rng(1).normal(0, 12, reference.shape)
    image[tissue_masks(reference)["lung"]] += 7
    for name, mask in tissue_masks(reference).items():
        found = hu_error(image, reference, mask)
        assert found.bias == pytest.approx(7.0 if name == "lung" else 0.0, abs=0.8)
        assert found.std == pytest.approx(12, rel=0.05)


def test_padding_is_no_air():
    reference = bands()
    valid = np.ones(reference.shape, dtype=bool)
    valid[:40] = False
    assert not tissue_masks(reference, valid=valid)["air"].any()


def test_classes_of_a_phantom_s_labels_agree_with_those_of_its_hu():
    phantom = anatomical_phantom(5, slices=1, size=256, region="chest")
    hu, labels = phantom.hu[..., 0], phantom.labels[..., 0]
    from_hu, from_labels = tissue_masks(hu), tissue_masks_from_labels(labels)
    assert set(from_hu) == set(from_labels) == set(TISSUE_HU)
    for name in ("air", "lung", "fat"):
        patient = from_hu[name] & (labels != TISSUES["table"])  # foam has the HU of lung
        assert (patient & from_labels[name]).sum() > 0.9 * patient.sum()
    assert (labels[from_labels["bone"]] == TISSUES["bone"]).all()


def test_too_few_pixels_and_other_shapes_are_refused():
    reference = bands()
    with pytest.raises(ValueError, match="at least 50 pixels, but got 0"):
        hu_error(reference, reference, np.zeros(reference.shape, dtype=bool))
    with pytest.raises(ValueError, match="the same shape"):
        hu_error(reference, reference[:-1], np.ones(reference.shape, dtype=bool))
    with pytest.raises(ValueError, match="sides of at least 7"):
        tissue_masks(reference[:5])


def test_erosion_takes_off_its_reach():
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 6:12] = True
    expected = np.zeros_like(mask)
    expected[7:13, 8:10] = True
    assert (eroded(mask) == expected).all()
    assert eroded(np.ones((9, 7), dtype=bool)).all()  # nothing is known beyond the edge: it takes nothing off
