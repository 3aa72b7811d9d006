import dataclasses
import math

import numpy as np
import pytest
from tiny_runs import ROOT

from ct_cncl.transforms.physics import DoseSettings, ParallelBeam, calibrate_incident_photons
from ct_cncl.transforms.physics.tags import (
    calibrate_from_tags,
    effective_mas,
    incident_photons_from_tags,
    kernel_ending_lp_cm,
)
from ct_cncl.transforms.series import Acquisition, read_scan

PIXEL = (0.8, 0.8)
SETTINGS = DoseSettings(apodisation="cosine", cutoff=0.7)
SCAN = Acquisition(
    kvp=120.0,
    tube_current_ma=250.0,
    exposure_time_ms=800.0,
    slice_thickness_mm=1.0,
    kernel="B30f",
    manufacturer="SIEMENS",
)


def changed(**values):
    return dataclasses.replace(SCAN, **values)


def incident_photons(acquisition=SCAN, pixel=PIXEL, **settings):
    return calibrate_from_tags(acquisition, pixel, dataclasses.replace(SETTINGS, **settings)).incident_photons


def test_photons_by_hand():
    """1.8e6 /(mm^2 mAs) * 200 mAs * 1 mm * 0.8 mm / 720 views."""
    found = calibrate_from_tags(SCAN, PIXEL, SETTINGS)
    assert found.method == "tags"
    assert found.reason == ""
    assert found.incident_photons == pytest.approx(4e5)
    assert math.isnan(found.noise_hu)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"tube_current_ma": 500.0}, 2),
        ({"exposure_time_ms": 400.0}, 0.5),
        ({"slice_thickness_mm": 5.0}, 5),
        ({"kvp": 140.0}, (140 / 120) ** 2.5),
        ({"kvp": 80.0}, (80 / 120) ** 2.5),
    ],
)
def test_photons_follow_tube_and_slice(change, factor):
    assert incident_photons(changed(**change)) == pytest.approx(factor * incident_photons())


def test_photons_of_a_slice_do_not_depend_on_how_channels_and_views_share_them():
    assert incident_photons(pixel=(0.4, 0.4)) == pytest.approx(incident_photons() / 2)
    assert incident_photons(pixel=(0.8, 1.6)) == pytest.approx(incident_photons())
    assert incident_photons(views=360) == pytest.approx(2 * incident_photons())


def test_photons_of_the_fan_beam():
    """736 channels of 1.2858 mm, 0.7047 mm at the isocentre, 1152 views a turn."""
    expected = 1.8e6 * 200 * 1.2858 * 595 / 1085.6 / 1152
    assert incident_photons(geometry="mayo", views=None) == pytest.approx(expected)


def test_mas_of_a_spiral_slice_come_before_time_and_both_before_the_stated_exposure():
    scan = Acquisition(
        tube_current_ma=204.0, exposure_time_ms=1325.0, exposure_mas=43.0, revolution_time_s=0.8, pitch=0.9375
    )
    assert effective_mas(scan) == pytest.approx(204 * 0.8 / 0.9375)
    assert effective_mas(dataclasses.replace(scan, pitch=None)) == pytest.approx(204 * 1.325)
    assert effective_mas(dataclasses.replace(scan, tube_current_ma=None)) == 43.0
    assert effective_mas(Acquisition(tube_current_ma=204.0)) is None


@pytest.mark.parametrize(
    ("acquisition", "words"),
    [
        (None, "no DICOM"),
        (changed(kvp=None), "KVP missing"),
        (changed(slice_thickness_mm=None), "SliceThickness missing"),
        (changed(exposure_time_ms=None), "XRayTubeCurrent with ExposureTime, or Exposure, missing"),
        (Acquisition(), "KVP and SliceThickness and XRayTubeCurrent"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_guessed(acquisition, words):
    found = calibrate_from_tags(acquisition, PIXEL, SETTINGS)
    assert found.method == "default"
    assert words in found.reason
    assert "default of 200000 photons" in found.reason
    assert (found.incident_photons, found.apodisation, found.cutoff) == (2e5, "cosine", 0.7)


def test_photons_without_tags_are_refused():
    with pytest.raises(ValueError, match="KVP"):
        incident_photons_from_tags(changed(kvp=None), ParallelBeam.for_image((8, 8), PIXEL))


# Kernels -------------------------------------------------------------------------------------------------------------


def test_the_filter_ends_where_the_kernel_does():
    """B30: 8 lp/cm = 0.8 /mm; Nyquist of 0.8 mm channels is 0.625 /mm."""
    found = calibrate_from_tags(SCAN, PIXEL, SETTINGS)
    assert found.apodisation == "hann"
    assert found.cutoff == pytest.approx(0.8 / 0.625)
    fine = calibrate_from_tags(SCAN, (0.4, 0.4), SETTINGS)
    assert fine.cutoff == pytest.approx(0.8 / 1.25)
    assert found.apply(SETTINGS).cutoff == found.cutoff


@pytest.mark.parametrize(
    ("kernel", "maker", "ending"),
    [
        ("B10f", "SIEMENS", 5.0),
        ("B30s", "SIEMENS", 8.0),
        ("B45f", "Siemens Healthineers", 10.25),
        ("Br40d\\3", "Siemens", 9.0),
        ("I31f", "SIEMENS", 8.1),
        ("B80f", "SIEMENS", 20.0),
        ("SOFT", "GE MEDICAL SYSTEMS", 7.0),
        ("STANDARD", "GE MEDICAL SYSTEMS", 9.5),
        ("STD+", "GE MEDICAL SYSTEMS", 9.5),
        ("CHST", "GE MEDICAL SYSTEMS", 9.5),
        ("Bone Plus", "GE MEDICAL SYSTEMS", 17.0),
        ("A", "Philips", 7.0),
        ("YB", "Philips Medical Systems", 8.5),
        ("FC17", "TOSHIBA", 8.5),
        ("FC52", "Canon Medical Systems", 13.5),
    ],
)
def test_kernels_by_maker(kernel, maker, ending):
    assert kernel_ending_lp_cm(kernel, maker) == pytest.approx(ending)


@pytest.mark.parametrize("maker", ["SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "TOSHIBA"])
def test_sharper_kernels_end_later(maker):
    kernels = {
        "SIEMENS": ["B10f", "B15f", "B20f", "B30f", "B40f", "B46f", "B50f", "B60f", "B70f", "B80f"],
        "GE MEDICAL SYSTEMS": ["SOFT", "STANDARD", "DETAIL", "LUNG", "BONE", "BONEPLUS", "EDGE"],
        "Philips": ["A", "B", "C", "D", "E"],
        "TOSHIBA": ["FC08", "FC21", "FC51", "FC30"],
    }[maker]
    endings = [kernel_ending_lp_cm(kernel, maker) for kernel in kernels]
    assert endings == sorted(endings)
    assert len(set(endings)) == len(endings)


@pytest.mark.parametrize(
    ("kernel", "maker", "reason"),
    [
        ("", "SIEMENS", "ConvolutionKernel missing"),
        ("B30f", "", "kernel 'B30f' of an unknown maker not known"),
        ("B99x", "SIEMENS", "'B99x' of SIEMENS not known"),
        ("IMR1", "Philips", "'IMR1'"),
        ("STANDARD", "SIEMENS", "'STANDARD' of SIEMENS"),
        ("FC", "TOSHIBA", "'FC'"),
    ],
)
def test_an_unknown_kernel_keeps_the_filter_and_says_so(kernel, maker, reason):
    found = calibrate_from_tags(changed(kernel=kernel, manufacturer=maker), PIXEL, SETTINGS)
    assert found.method == "tags"
    assert found.incident_photons == pytest.approx(4e5)
    assert reason in found.reason
    assert "filter as given" in found.reason
    assert (found.apodisation, found.cutoff) == ("cosine", 0.7)


# Real scans ----------------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("name", ["crlm1004", "kits00072"])
def test_tags_agree_with_the_image_within_their_uncertainty(name):
    source = ROOT.parent / "shared" / "ct" / "dicom" / name
    if not source.is_dir():
        pytest.skip("no real CT beside this checkout (../shared/ct)")
    scan = read_scan(source)
    pixel = (float(scan.spacing[0]), float(scan.spacing[1]))
    volume = np.ascontiguousarray(scan.hu[..., 5:8])
    tags = calibrate_from_tags(scan.acquisition, pixel, DoseSettings())
    image = calibrate_incident_photons(volume, pixel, DoseSettings(), seed=0, max_slices=2)
    assert tags.method == "tags"
    assert 0.4 < tags.incident_photons / image.incident_photons < 2.5
    assert 0.75 < tags.cutoff / image.cutoff < 1.33
