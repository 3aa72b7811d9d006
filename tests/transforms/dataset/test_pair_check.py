"""Pairs that are none: swapped doses, another patient under the right geometry."""

import re

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.pipeline.preparation.prepare import PrepareOptions, prepare_data
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.pair_check import check_pair

NAMES = ("low/scan", "full/scan")


def body(seed=0, shift=(0, 0)):
    """An ellipse of soft tissue with organs, (96, 80, 3) HU."""
    x, y = np.meshgrid(np.arange(96) - 48 - shift[0], np.arange(80) - 40 - shift[1], indexing="ij")
    hu = np.where(np.hypot(x / 42, y / 34) < 1, 40.0, -1000.0)
    rng = np.random.default_rng(seed)
    for _ in range(6):
        a, b = rng.uniform(-20, 20, 2)
        hu[np.hypot(x - a, y - b) < 6] = rng.uniform(60, 120)
    return np.repeat(hu[..., None], 3, axis=2)


def noisy(hu, sigma, seed):
    return (hu + np.random.default_rng(seed).normal(0, sigma, hu.shape)).round().astype(np.int16)


@pytest.mark.parametrize("sigma", [(20, 10), (200, 10), (10, 0), (10.5, 10), (10, 10)])
def test_noise_alone_is_a_pair(sigma):
    check_pair(noisy(body(), sigma[0], 1), noisy(body(), sigma[1], 2), NAMES)


def test_swapped_doses_are_refused_with_both_levels():
    with pytest.raises(DataError, match=r"Are the two swapped\?") as error:
        check_pair(noisy(body(), 10, 1), noisy(body(), 20, 2), NAMES)
    label, image = map(
        float,
        re.search(
            r"of (\S+) HU in the full dose \(full/scan\) and of (\S+) HU in the low dose \(low/scan\)", str(error.value)
        ).groups(),
    )
    assert label == pytest.approx(20, rel=0.12)  # a low quantile of local deviations
    assert image == pytest.approx(10, rel=0.12)


@pytest.mark.parametrize(
    "other", [body(7, (6, 4)), body(0, (8, 0)), body()[::-1] + np.linspace(0, 400, 96)[:, None, None]]
)
def test_another_patient_or_place_is_refused_with_what_the_difference_holds(other):
    with pytest.raises(
        DataError, match=r"difference shows structure: of its \d+ HU \(rms\).* of the same patient and position"
    ):
        check_pair(noisy(other, 20, 1), noisy(body(), 10, 2), NAMES)


def test_tiny_images_and_images_without_tissue_are_not_judged():
    check_pair(np.zeros((20, 20, 1)), noisy(np.zeros((20, 20, 1)), 5, 0), NAMES)
    check_pair(noisy(np.full((64, 64, 1), -1000.0), 5, 0), noisy(np.full((64, 64, 1), -1000.0), 9, 0), NAMES)


def prepared(tmp_path, low, full, **options):
    for name, volumes in (("low", low), ("full", full)):
        (tmp_path / name).mkdir()
        for patient, hu in volumes.items():
            nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 3.0, 1])), tmp_path / name / f"{patient}.nii")
    return prepare_data(
        PrepareOptions(out=tmp_path / "data", sources=[tmp_path / "full"], low=[tmp_path / "low"], salt="s", **options)
    )


def test_prepare_leaves_nothing_of_swapped_pairs(tmp_path):
    low, full = ({p: noisy(body(), sigma, k) for k, p in enumerate(("p1", "p2"))} for sigma in (20, 10))
    with pytest.raises(DataError, match=r"less noisy than the low dose.*\(p[12]\)"):
        prepared(tmp_path, full, low)
    assert not (tmp_path / "data").exists()


def test_names_of_one_series_get_a_rule_that_works(tmp_path):
    """nysbu_A....nii.gz are all `nysbu` to the default rule."""
    names = ("nysbu_A1_1900", "nysbu_A2_1900")
    low, full = ({name: noisy(body(), sigma, k) for k, name in enumerate(names)} for sigma in (20, 10))
    with pytest.raises(DataError, match="For example --patient-from-name") as error:
        prepared(tmp_path, low, full)
    assert "one low-dose partner" in str(error.value) or "one patient" in str(error.value)
