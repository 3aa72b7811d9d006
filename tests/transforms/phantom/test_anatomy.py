"""The public function: reproducible, in the stated frame, with realistic HU."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from ct_cncl.transforms.phantom import TISSUES, Phantom, anatomical_phantom
from ct_cncl.transforms.phantom.anatomy import blur


def eroded(mask: np.ndarray, times: int = 2) -> np.ndarray:
    """``mask`` (x, y, z) without its in-plane rim of ``times`` pixels."""
    for _ in range(times):
        padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
        mask = mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return mask


def centre_of(phantom: Phantom, *tissues: str) -> np.ndarray:
    """Mean world position (RAS mm) of the voxels of ``tissues``."""
    index = np.argwhere(np.isin(phantom.labels, [TISSUES[t] for t in tissues])).mean(axis=0)
    return (phantom.affine @ [*index, 1])[:3]


def test_same_seed_gives_the_same_bits():
    first, second = (anatomical_phantom(5, slices=2, size=96) for _ in range(2))
    assert first.hu.tobytes() == second.hu.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.affine.tobytes() == second.affine.tobytes()
    assert first.lesions == second.lesions


def test_the_global_random_state_plays_no_part():
    np.random.seed(1)
    first = anatomical_phantom(5, slices=1, size=64)
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    second = anatomical_phantom(5, slices=1, size=64)
    np.testing.assert_array_equal(first.hu, second.hu)
    np.random.seed(1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("region", ["chest", "abdomen", None])
def test_no_two_seeds_look_alike(region):
    pictures = [np.clip(anatomical_phantom(s, slices=1, size=64, region=region).hu, -160, 240) for s in range(5)]
    for one, other in itertools.combinations(pictures, 2):
        body = (one > -150) | (other > -150)
        assert np.abs(one - other)[body].mean() > 25  # HU in the abdominal window


def test_shapes_types_and_range():
    phantom = anatomical_phantom(3, slices=3, size=80, slice_spacing_mm=2.5)
    assert phantom.hu.shape == phantom.labels.shape == (80, 80, 3)
    assert (phantom.hu.dtype, phantom.labels.dtype, phantom.affine.dtype) == (np.float32, np.uint8, np.float64)
    assert np.isfinite(phantom.hu).all()
    assert phantom.hu.min() >= -1001
    assert phantom.hu.max() < 1100
    assert set(np.unique(phantom.labels)) <= set(TISSUES.values())


def test_affine_is_centred_lps_in_the_plane():
    phantom = anatomical_phantom(3, slices=3, size=80, slice_spacing_mm=2.5)
    px = -phantom.affine[0, 0]
    np.testing.assert_allclose(phantom.affine[:3, :3], np.diag([-px, -px, 2.5]))
    assert 0.65 <= px * 80 / 512 <= 0.92
    np.testing.assert_allclose(phantom.affine @ [39.5, 39.5, 1, 1], [0, 0, 0, 1], atol=1e-9)


def test_field_of_view_and_patient_do_not_depend_on_size():
    large = anatomical_phantom(4, slices=1, size=256, region="abdomen")
    small = anatomical_phantom(4, slices=1, size=128, region="abdomen")
    assert small.affine[0, 0] == pytest.approx(2 * large.affine[0, 0])
    pooled = large.hu.reshape(128, 2, 128, 2, 1).mean(axis=(1, 3))
    difference = np.abs(pooled - small.hu)
    assert np.corrcoef(pooled.ravel(), small.hu.ravel())[0, 1] > 0.985
    assert np.median(difference[small.hu > -200]) < 12


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        ("air", -1001, -985),
        ("fat", -120, -80),
        ("muscle", 40, 70),
        ("liver", 52, 122),
        ("spleen", 40, 135),
        ("kidney", 25, 220),
        ("bone", 100, 900),
        ("vessel", 30, 360),
        ("bile", 0, 30),
        ("gas", -1000, -930),
        ("nerve", 5, 60),
    ],
)
def test_abdominal_tissue_has_its_hu(abdomens, tissue, low, high):
    means = []
    for phantom in abdomens:
        inside = eroded(phantom.labels == TISSUES[tissue])
        if inside.sum() >= 10:
            means.append(phantom.hu[inside].mean())
    assert means, f"no {tissue} in any phantom"
    assert low < min(means)
    assert max(means) < high


@pytest.mark.parametrize(
    ("tissue", "low", "high"), [("lung", -900, -770), ("airway", -1000, -900), ("heart", 38, 330), ("fat", -120, -75)]
)
def test_chest_tissue_has_its_hu(chests, tissue, low, high):
    means = [
        phantom.hu[inside].mean()
        for phantom in chests
        if (inside := eroded(phantom.labels == TISSUES[tissue])).sum() >= 10
    ]
    assert means
    assert low < min(means)
    assert max(means) < high


def test_lung_is_denser_at_the_back(chests):
    for phantom in chests:
        lung = eroded(phantom.labels == TISSUES["lung"])
        rows = np.nonzero(lung)[1]
        front, back = np.quantile(rows, [0.2, 0.8])
        values = phantom.hu[lung]
        assert np.median(values[rows > back]) > np.median(values[rows < front]) + 10


def test_patients_lie_on_their_back_head_first(abdomens):
    for phantom in abdomens:
        body = centre_of(phantom, "fat", "muscle", "liver", "bone")
        assert centre_of(phantom, "liver")[0] > body[0] + 10  # RAS: +x is the patient's right
        assert centre_of(phantom, "nerve")[1] < body[1] - 20  # the spine lies at the back
        assert centre_of(phantom, "table")[1] < centre_of(phantom, "nerve")[1] - 40
        columns = np.argwhere(phantom.labels == TISSUES["liver"])[:, 0]
        assert columns.mean() < phantom.hu.shape[0] / 2  # left in the picture


def test_head_is_up():
    phantom = anatomical_phantom(21, slices=8, size=64, slice_spacing_mm=45.0)
    lung = (phantom.labels == TISSUES["lung"]).sum(axis=(0, 1))
    kidney = (phantom.labels == TISSUES["kidney"]).sum(axis=(0, 1))
    assert lung.argmax() > kidney.argmax()
    assert lung[-1] > 0
    assert lung[0] == 0


def test_neighbouring_slices_belong_together():
    phantom = anatomical_phantom(6, slices=3, size=128, slice_spacing_mm=5.0)
    body = np.clip(phantom.hu, -200, 300)

    def likeness(a: int, b: int) -> float:
        return float(np.corrcoef(body[:, :, a].ravel(), body[:, :, b].ravel())[0, 1])

    assert likeness(0, 1) > 0.93
    assert likeness(0, 1) > likeness(0, 2)


def test_regions_hold_what_they_say(abdomens, chests):
    for phantom in chests:
        assert (phantom.labels == TISSUES["lung"]).mean() > 0.05
    for phantom in abdomens:
        assert (phantom.labels == TISSUES["liver"]).mean() > 0.02


def test_contrast_phases_differ():
    aortas = []
    for seed in range(12):
        phantom = anatomical_phantom(seed, slices=1, size=128, region="abdomen")
        blood = eroded(phantom.labels == TISSUES["vessel"], 1)
        aortas.append(float(np.quantile(phantom.hu[blood], 0.95)))
    assert min(aortas) < 60
    assert max(aortas) > 200


@pytest.mark.parametrize(
    "bad",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"seed": True},
        {"slices": 0},
        {"size": 8},
        {"size": 64.0},
        {"region": "head"},
        {"slice_spacing_mm": 0.0},
        {"slice_spacing_mm": float("nan")},
    ],
    ids=str,
)
def test_bad_arguments_say_what_was_expected(bad):
    arguments = {"seed": 1, **bad}
    with pytest.raises(ValueError, match=r"^Expected .*, but got .*\.$") as error:
        anatomical_phantom(arguments.pop("seed"), **arguments)
    assert next(iter(bad)) in str(error.value)


def test_blur_keeps_the_mean_and_spreads_a_point():
    point = np.zeros((21, 21), np.float32)
    point[10, 10] = 1
    spread = blur(point, 1.5)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    offsets = np.arange(21) - 10
    assert (spread.sum(axis=1) * offsets**2).sum() == pytest.approx(1.5**2, rel=0.03)


def test_a_full_slice_is_made_within_a_second():
    anatomical_phantom(1, slices=1, size=64)
    start = time.process_time()
    anatomical_phantom(2, slices=2)
    assert (time.process_time() - start) / 2 < 1.0
