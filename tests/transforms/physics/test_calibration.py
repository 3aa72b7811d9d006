import dataclasses
import math

import numpy as np
import pytest
from physics_analytic import ellipse_image

from ct_cncl.transforms.anatomy.regions import local_std, noise_power_spectrum, soft_tissue_windows
from ct_cncl.transforms.phantom import anatomical_phantom
from ct_cncl.transforms.physics import DoseSettings, calibrate_incident_photons, insert_noise
from ct_cncl.transforms.physics.fbp import apodisation_window

SIZE, PIXEL = 192, (1.5, 1.5)
SETTINGS = DoseSettings(dose_fraction=0.25, views=240)
WATER = ellipse_image((SIZE, SIZE), PIXEL, [(0, 0, 110, 110, 0, 1000.0)]) - 1000
BODY = (
    ellipse_image(
        (SIZE, SIZE),
        PIXEL,
        [
            (0, 0, 135, 95, 0, 900.0),  # fat, -100 HU
            (0, 0, 122, 84, 0, 140.0),  # muscle
            (-50, 5, 55, 45, 0.3, 60.0),  # liver
            (70, 20, 28, 22, 0, 80.0),  # spleen
            (0, -62, 16, 14, 0, 400.0),  # vertebra
            (45, -20, 12, 20, 0, 130.0),  # kidney
            (30, 40, 20, 12, 0.5, -700.0),  # bowel gas
            *[(x, y, 3, 3, 0, 90.0) for x in range(-90, -10, 26) for y in (-12, 22)],  # vessels
        ],
    )
    - 1000
)


COARSER_THAN_ANATOMY = pytest.mark.xfail(
    reason="noise below 0.14 / mm among vessels and texture of that size, sharper than the kernel: told apart to 13 to 50 % only",
    strict=True,
)
"""Known limit of the estimate, stated in docs/explanations/physics.md; the estimate before issue 21 (calmest patches) held 5 to 9 % here."""


def blurred(hu, pixel, cutoff):
    """(x, y, z) as a scanner with this Hann window shows it: anatomy goes through the kernel, too."""
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, side) for n, side in zip(hu.shape, pixel)), indexing="ij"))
    window = apodisation_window(np.minimum(radius * 2 * min(pixel), 1), "hann", cutoff)
    return np.fft.ifft2(np.fft.fft2(hu, axes=(0, 1)) * window[..., None], axes=(0, 1)).real.astype(np.float32)


def scan(clean, incident_photons, slices=3, seed=0, **changes):
    """A full-dose scan (x, y, z) of a noise-free slice."""
    settings = dataclasses.replace(SETTINGS, dose_fraction=1.0, incident_photons=incident_photons, **changes)
    return insert_noise(np.repeat(clean[..., None], slices, axis=2), PIXEL, settings, seed, noise_free=True)


@pytest.mark.parametrize("clean", [WATER, BODY], ids=["water", "body"])
@pytest.mark.parametrize(("incident_photons", "cutoff"), [(1e5, 0.6), (4e5, 1.0), (1e6, 2.0)])
def test_known_level_and_spectrum_are_recovered(request, clean, incident_photons, cutoff):
    if clean is BODY and cutoff == 0.6:
        request.applymarker(COARSER_THAN_ANATOMY)
    # 8 slices leave 1 to 2 % of statistical error. Smooth noise on pixels of 1.5 mm looks like anatomy: 5 to 8 % too much.
    volume = scan(clean, incident_photons, slices=8, cutoff=cutoff)
    found = calibrate_incident_photons(volume, PIXEL, SETTINGS, seed=9, max_slices=8)
    assert found.method == "image"
    assert found.reason == ""
    known = np.concatenate([(volume - clean[..., None])[soft_tissue_windows(volume[..., z]), z] for z in range(8)])
    assert found.noise_hu == pytest.approx(np.sqrt(np.mean(known**2)), rel=0.09 if clean is BODY else 0.05)
    assert found.added_frequency_per_mm == pytest.approx(found.scan_frequency_per_mm, rel=0.01)
    assert found.cutoff == pytest.approx(cutoff, rel=0.15)
    assert found.apodisation == "hann"


@pytest.mark.parametrize(
    ("incident_photons", "cutoff", "scanner"),
    [
        (1e5, 1.0, {}),
        pytest.param(
            5e4,
            0.6,
            {},
            marks=COARSER_THAN_ANATOMY,
        ),  # 10 HU; the phantom has texture of its own, 1 to 2 HU, that no method can tell from smooth noise
        (2e5, 2.0, {}),
        (1e5, 1.0, {"geometry": "mayo", "views": 576, "bowtie_mm": 300.0, "current_modulation": 0.5}),
    ],
    ids=["standard", "smooth", "sharp", "fan beam with bowtie and modulated current"],
)
def test_thorax_gets_its_own_noise_back(incident_photons, cutoff, scanner):
    """Level and mean frequency of what is inserted at half dose, against the noise that the scan really has: 5 %."""
    phantom = anatomical_phantom(3, slices=5)
    clean = blurred(phantom.hu, np.abs(np.diag(phantom.affine))[:2], cutoff)
    pixel = tuple(float(side) for side in np.abs(np.diag(phantom.affine))[:2])
    original = DoseSettings(dose_fraction=1.0, incident_photons=incident_photons, cutoff=cutoff, **scanner)
    stored = np.rint(insert_noise(clean, pixel, original, 3, noise_free=True))
    found = calibrate_incident_photons(stored, pixel, DoseSettings(dose_fraction=0.5, **scanner), seed=5)
    inserted = insert_noise(clean, pixel, found.apply(DoseSettings(dose_fraction=0.5, **scanner)), 9)
    tissue = np.stack([soft_tissue_windows(clean[..., z]) for z in range(5)], axis=-1)
    corners = [
        (i, j, z)
        for z in range(5)
        for i in range(0, 488, 12)
        for j in range(0, 488, 12)
        if tissue[i : i + 24, j : j + 24, z].all()
    ]
    levels, frequencies = [], []
    for noise in (inserted - clean, stored - clean):
        levels.append(np.sqrt(np.mean(noise[tissue] ** 2)))
        patches = np.stack([noise[i : i + 24, j : j + 24, z] for i, j, z in corners])
        frequencies.append(noise_power_spectrum(patches, pixel).mean_frequency)
    assert levels[0] == pytest.approx(levels[1], rel=0.05)
    assert frequencies[0] == pytest.approx(frequencies[1], rel=0.05)


def test_a_kernel_of_another_family_is_matched_in_mean_frequency_and_level():
    volume = scan(WATER, 4e5, apodisation="cosine", cutoff=0.8)
    found = calibrate_incident_photons(volume, PIXEL, SETTINGS, seed=9)
    assert found.added_frequency_per_mm == pytest.approx(found.scan_frequency_per_mm, rel=0.05)
    ratio = measured_ratio(volume, found.apply(SETTINGS))
    assert ratio == pytest.approx(2.0, rel=0.05)


def measured_ratio(volume, settings):
    """Noise after insertion over noise before, median over the same windows of a structure-free object."""
    low = insert_noise(volume, PIXEL, settings, seed=77)
    levels = []
    for image in (low, volume):
        parts = [local_std(image[..., z])[1][soft_tissue_windows(volume[..., z])] for z in range(volume.shape[2])]
        levels.append(np.sqrt(np.mean(np.concatenate(parts) ** 2)))
    return levels[0] / levels[1]


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_noise_after_insertion_is_full_noise_over_the_root_of_the_dose(fraction):
    settings = dataclasses.replace(SETTINGS, dose_fraction=fraction)
    volume = scan(WATER, 3e5, slices=4)
    found = calibrate_incident_photons(volume, PIXEL, settings, seed=9, match_spectrum=False)
    assert math.sqrt(3e5 / found.incident_photons) == pytest.approx(1, abs=0.05)
    assert measured_ratio(volume, found.apply(settings)) == pytest.approx(math.sqrt(1 / fraction), rel=0.05)


def test_electronic_noise_is_told_from_quantum_noise():
    """4,400 photons behind the middle: Ne = 5000 doubles the variance there, N0 must not pay for it."""
    volume = scan(WATER, 3e5, slices=4, electronic_variance=5000.0)
    settings = dataclasses.replace(SETTINGS, electronic_variance=5000.0)
    found = calibrate_incident_photons(volume, PIXEL, settings, seed=9, match_spectrum=False)
    assert math.sqrt(3e5 / found.incident_photons) == pytest.approx(1, abs=0.05)


def test_the_dose_fraction_plays_no_part():
    volume = scan(WATER, 2e5, slices=1)
    quarter, tenth = (
        calibrate_incident_photons(volume, PIXEL, dataclasses.replace(SETTINGS, dose_fraction=a), seed=1)
        for a in (0.25, 0.1)
    )
    assert quarter == tenth


def test_noise_in_hu_is_reported():
    volume = scan(WATER, 2e5)
    found = calibrate_incident_photons(volume, PIXEL, SETTINGS, seed=1)
    windows = soft_tissue_windows(volume[..., 0])
    true = np.sqrt(np.mean((volume - WATER[..., None])[windows] ** 2))
    assert found.noise_hu == pytest.approx(true, rel=0.05)
    assert found.slices == (0, 1, 2)
    assert found.windows > 1000


def test_settings_outside_the_calibration_are_kept():
    found = calibrate_incident_photons(scan(WATER, 2e5, slices=1), PIXEL, SETTINGS, seed=1, match_spectrum=False)
    assert "not asked for" in found.reason
    applied = found.apply(dataclasses.replace(SETTINGS, electronic_variance=50.0))
    assert applied == dataclasses.replace(SETTINGS, electronic_variance=50.0, incident_photons=found.incident_photons)


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (np.random.default_rng(0).normal(-800, 30, (96, 96, 2)), "no uniform soft tissue"),
        (np.random.default_rng(0).normal(0, 10, (16, 16, 2)), "no uniform soft tissue"),
        (WATER[..., None], "no noise in the soft tissue"),
    ],
    ids=["lung", "tiny", "noise-free"],
)
def test_without_anything_to_measure_the_default_is_stated(volume, reason):
    found = calibrate_incident_photons(volume, PIXEL, SETTINGS, seed=0)
    assert found.method == "default"
    assert found.incident_photons == 2e5
    assert reason in found.reason
    assert "default of 200000 photons" in found.reason
    assert math.isnan(found.noise_hu)
    assert found.apply(SETTINGS).cutoff == SETTINGS.cutoff


@pytest.mark.parametrize("bad", [{"max_slices": 0}, {"seed": -1}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match="Expected max_slices"):
        calibrate_incident_photons(WATER[..., None], PIXEL, SETTINGS, **({"seed": 0} | bad))


def test_what_is_not_hu_is_refused():
    with pytest.raises(ValueError, match="never below 0"):
        calibrate_incident_photons(WATER[..., None] + 1024, PIXEL, SETTINGS, seed=0)
    with pytest.raises(ValueError, match="Expected pixel_mm"):
        calibrate_incident_photons(WATER[..., None], None, SETTINGS, seed=0)
