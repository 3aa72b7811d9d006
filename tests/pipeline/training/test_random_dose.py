"""Random doses through the bundle's own training config."""

import pytest
import torch
from tiny_patches import drawn, one_of
from tiny_runs import TINY

from ct_cncl.pipeline.preparation.prepare import PrepareOptions, prepare_data
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, overlay_file, run_workflow
from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.patches.lesions import RandLesionsd


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    prepare_data(PrepareOptions(out=folder, phantoms=2, slices=1, size=64, realizations=2, validation_fraction=0.5))
    return folder


def workflow(data, out, *overlays, **overrides):
    doses = {f"patches#{key}": overrides.pop(key) for key in list(overrides) if key.endswith("_range")}
    overrides = TINY | {"dataset_dir": str(data), "output_dir": str(out), "max_epochs": 1} | doses | overrides
    if overlays:  # their network, small
        overrides = {
            key: value for key, value in overrides.items() if "network_def" not in key and "discriminator" not in key
        }
        overrides |= {f"network_def#{branch}#width": 4 for branch in ("content", "noise")}
    files = [config_file("train.json"), *map(overlay_file, overlays)]
    return build_workflow(files, run_id="training", overrides=overrides)


def test_a_training_at_random_nested_doses_runs(dataset, tmp_path):
    done = run_workflow(workflow(dataset, tmp_path / "run", dose_range=[0.1, 0.5], nested_dose_range=[0.3, 1.0]))
    pairs = done.parser.get_parsed_content("train#dataset")
    dose = one_of(pairs, "RandLowDosed")
    assert (dose.dose_range, dose.nested_dose_range) == ((0.1, 0.5), (0.3, 1.0))
    assert (tmp_path / "run" / "last.pt").is_file()


def test_without_a_range_the_stored_images_are_used(dataset, tmp_path):
    pairs = run_workflow(workflow(dataset, tmp_path / "run")).parser.get_parsed_content("train#dataset")
    assert one_of(pairs, "RandLowDosed") is None


def test_data_without_unit_noise_are_refused_before_anything_runs(tiny_dataset, tmp_path):
    with pytest.raises(DataError, match=r"noise realizations for scan0.nii.gz.*--realizations 1"):
        run_workflow(workflow(tiny_dataset, tmp_path / "run", dose_range=[0.1, 0.5]))
    left = {path.name for path in (tmp_path / "run").iterdir()} if (tmp_path / "run").is_dir() else set()
    assert left <= {"tensorboard"}


@pytest.mark.parametrize("phantoms", [True, False])
def test_the_recipe_of_the_shipped_weights(dataset, tmp_path, phantoms):
    """Quarter dose of targets at random doses, other kernels and pixel sizes; short scans count for four slices."""
    where = {"phantom_dir": str(dataset)} if phantoms else {}
    done = run_workflow(workflow(dataset, tmp_path / "run", "quarter_dose", **where))
    pairs = done.parser.get_parsed_content("train#dataset")
    assert len(pairs.slices) == (8 if phantoms else 4)
    draws = [drawn(pairs, number) for number in range(40)]
    assert {draw.dose.fraction for draw in draws} == {0.25}
    assert 0.2 <= min(draw.dose.target_fraction for draw in draws) < 0.25
    assert min(draw.side for draw in draws) < 32 < max(draw.side for draw in draws)
    assert min(draw.sharpness for draw in draws) < 0 < max(draw.sharpness for draw in draws)
    (lesions,) = (one for one in pairs.transform.transforms if isinstance(one, RandLesionsd))
    assert (lesions.transform.prob, lesions.transform.most, lesions.weight) == (1.0, 6, 5.0)
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["network_def"]
    assert all(value.isfinite().all() for value in state.values())
