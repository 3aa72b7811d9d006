"""Target doses are strengths: the theory on cases that can be computed, the one core above 1, and what is refused."""

import json
import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_archive import write_series
from scipy.stats import binom, poisson
from series_files import nifti
from tiny_weights import Add, scripted, tiny_cncl
from typer.testing import CliRunner

from ct_cncl.pipeline.cli.app import app
from ct_cncl.pipeline.inference.api import denoise, denoise_scans
from ct_cncl.pipeline.inference.target_dose import STRENGTHS, chosen_strength, strength_of_target
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow
from ct_cncl.transforms.series.values import with_strength

QUARTER = {"input_dose": [0.25, 0.25]}


@pytest.mark.parametrize("target", [1.0, 2.0, 4.0, 10.0, "clean"])
@pytest.mark.parametrize("input_dose", [0.0, 0.25, 0.5])
def test_the_best_estimate_of_every_target_follows_from_that_of_one(target, input_dose):
    """Image and noise Gaussian, both correlated: conditional means by the joint covariance, which knows nothing of strengths."""
    rng = np.random.default_rng(0)
    image, noise = (a @ a.T for a in rng.normal(0, 1, (2, 12, 12)))
    y = rng.multivariate_normal(np.zeros(12), image + noise)

    def best(share):
        """Of the reference with so much of the input's noise variance: x + n', n' in n."""
        return (image + share * noise) @ np.linalg.solve(image + noise, y)

    strength = strength_of_target(target, input_dose=input_dose)
    found = with_strength(y, best(input_dose), strength)
    np.testing.assert_allclose(found, best(0.0 if target == "clean" else 1 / target), atol=1e-6)


def test_thinned_counts_follow_the_same_rule():
    """E[reference | input] where the input's photons are a share of the reference's, by summing over all counts."""
    mean, target, seen = 40.0, 4.0, 13
    counts = np.arange(seen, 400)
    weight = poisson.pmf(counts, mean) * binom.pmf(seen, counts, 1 / target)
    reference = (counts * weight).sum() / weight.sum() / mean
    y = seen / (mean / target)
    assert reference == pytest.approx(y - (1 - 1 / target) * (y - 1.0), rel=1e-9)


def test_strengths_of_targets():
    assert chosen_strength(None, None, {}) == 1.0
    assert [chosen_strength(None, target, QUARTER) for target in ("2", 4.0, 1)] == [pytest.approx(2 / 3), 1.0, 0.0]
    assert chosen_strength(None, "clean", {"input_dose": [0.0, 0.0]}) == 1.0
    assert chosen_strength("0.7", None, {}) == 0.7
    assert [chosen_strength(name, None, {}) for name in STRENGTHS] == list(STRENGTHS.values())


@pytest.mark.parametrize(
    ("strength", "target", "known", "words"),
    [
        (0.5, 2, QUARTER, "a strength or a target dose, but got both (0.5 and 2)"),
        (None, 0.9, QUARTER, "a target dose of 1 or more"),
        (None, "nan", QUARTER, "or clean, but got nan"),
        (None, "much", QUARTER, "or clean, but got much"),
        ("strong", None, QUARTER, "a strength from 0 to 1 or low, medium, high, but got strong"),
        (1.2, None, QUARTER, "a strength from 0 to 1"),
        (None, 2, {}, "weights that state the dose they were trained for"),
        (None, 2, {"input_dose": 4}, "weights that state the dose they were trained for"),
        (None, 2, {"input_dose": [0.1, 0.5]}, "were trained on inputs at 0.1 to 0.5 of their references' doses"),
        (
            None,
            "clean",
            {"input_dose": [0.8, 0.8]},
            "would take 5.00 times their correction, and 2 times is the maximum",
        ),
    ],
)
def test_what_is_refused(strength, target, known, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        chosen_strength(strength, target, known)
    assert "\n" not in str(error.value)


def known_weights(folder):
    """A tiny network, trained at a quarter of the references' doses."""
    path, network = tiny_cncl(folder)
    (folder / "trained_on.json").write_text(json.dumps(QUARTER))
    return path, network


def test_beyond_the_network_four_ways(tmp_path):
    """Command, path and volume in Python, inference.json: 1.2 times the network's change, the same values."""
    path, network = known_weights(tmp_path / "run")
    hu = np.random.default_rng(0).integers(-200, 300, (20, 18, 2)).astype(np.int16)
    source = nifti(tmp_path / "a.nii", hu, np.diag([-1, -1, 2, 1]))
    command = ["denoise", source, tmp_path / "one.nii", "--weights", path, "--target-dose", "10"]
    result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (two,) = denoise_scans(source, tmp_path / "two", weights=path, target_dose=10, progress=False)
    overrides = {
        "dataset_dir": str(source),
        "output_dir": str(tmp_path / "three"),
        "network_def": json.loads((path.parent / "config.json").read_text())["network_def"],
        "checkpoint": str(path),
        "device": "$torch.device('cpu')",
        "progress": False,
        "target_dose": 10,
    }
    run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))
    files = (tmp_path / "one.nii", two, tmp_path / "three" / "a_denoised.nii")
    stored = [np.asanyarray(nib.load(file).dataobj) for file in files]
    expected = denoise(hu, weights=path, target_dose=10)
    for one in stored:
        np.testing.assert_array_equal(one, expected)
    with torch.no_grad():
        units = (torch.from_numpy(np.moveaxis(hu, 2, 0)[:, None].astype(np.float32)) + 1024) / 4096
        change = (network(units) - units)[:, 0].numpy() * 4096
    assert np.abs(change).max() > 20
    assert np.abs(expected - (hu + 1.2 * np.moveaxis(change, 0, 2))).max() <= 0.51


def test_dicom_states_what_was_done(tmp_path):
    weights = scripted(Add(10.0), tmp_path / "w" / "model.ts")
    (tmp_path / "w" / "trained_on.json").write_text(json.dumps(QUARTER))
    write_series(tmp_path / "in", 1, slices=2)
    made = {}
    for target in (2, 4, 10, "clean"):
        out = tmp_path / str(target)
        (folder,) = denoise_scans(tmp_path / "in", out, weights=weights, target_dose=target, progress=False)
        made[target] = pydicom.dcmread(sorted(folder.iterdir())[0])
        record = json.loads((out / f"{folder.name}.json").read_text())
        assert [text.startswith("strength") for text in record["warnings"]] == [True] * (target in (10, "clean"))
        assert record["strength"] == pytest.approx({2: 2 / 3, 4: 1, 10: 1.2, "clean": 4 / 3}[target])
    source = pydicom.dcmread(sorted((tmp_path / "in").iterdir())[0])
    shift = {key: int((ds.pixel_array.astype(int) - source.pixel_array).max()) for key, ds in made.items()}
    assert shift == {2: 7, 4: 10, 10: 12, "clean": 13}
    assert "strength 1.2" in made[10].DerivationDescription
    assert made[10].SeriesDescription.endswith("denoised CNCL 1.2")
    assert made[2].SeriesDescription.endswith("denoised CNCL 0.667")
    assert len({ds.SOPInstanceUID for ds in made.values()}) == 4
    assert len({ds.SeriesNumber for ds in made.values()}) == 4
    (plain,) = denoise_scans(tmp_path / "in", tmp_path / "plain", weights=weights, progress=False)
    assert pydicom.dcmread(sorted(plain.iterdir())[0]).SOPInstanceUID == made[4].SOPInstanceUID


@pytest.mark.skipif(not (installed_bundle() / "models/model.pt").is_file(), reason="this checkout ships no weights")
@pytest.mark.parametrize("name", ["model.pt", "pixel.pt"])
def test_the_shipped_weights_say_that_they_make_four_times_the_dose(name):
    known = open_weights(installed_bundle() / "models" / name, torch.device("cpu")).trained_on
    assert chosen_strength(None, 4, known) == 1.0
