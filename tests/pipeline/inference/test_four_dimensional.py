"""Series with several images at each place through a network of three slices."""

import json

import numpy as np
import pydicom
from series_files import ct_slice, save
from tiny_weights import MeanOfThree, scripted

from ct_cncl.pipeline.inference.api import denoise_scans


def phase(folder, number, *, places=4):
    for place in range(places):
        stored = np.random.default_rng([number, place]).integers(0, 2000, (8, 8))
        ds = ct_slice(stored, (0, 0, 2.0 * place), StudyInstanceUID="1.9", AcquisitionNumber=number)
        ds.InstanceNumber, ds.SOPInstanceUID = place + 1, f"1.2.{number}.{place + 1}"
        save(ds, folder / f"{place}{number}.dcm")


def by_source(folder):
    results = map(pydicom.dcmread, folder.iterdir())
    return {ds.SourceImageSequence[0].ReferencedSOPInstanceUID: ds.pixel_array for ds in results}


def test_a_phase_is_denoised_as_if_it_were_alone(tmp_path):
    """Regression: the neighbours of a slice were the other phases at its place."""
    weights = scripted(MeanOfThree(), tmp_path / "three.ts")
    for number in (1, 2, 3):
        phase(tmp_path / "all", number)
        phase(tmp_path / f"alone{number}", number)
    (together,) = denoise_scans(tmp_path / "all", tmp_path / "out", weights=weights, batch_size=5, progress=False)
    found = by_source(together)
    assert len(found) == 12
    for number in (1, 2, 3):
        out = tmp_path / f"out{number}"
        (alone,) = denoise_scans(tmp_path / f"alone{number}", out, weights=weights, progress=False)
        for uid, expected in by_source(alone).items():
            np.testing.assert_array_equal(found[uid], expected)
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert "with those beside them, of the same phase, anyway" in json.loads(line)["warnings"][0]
