"""Random doses through the bundle's own training config."""

import pytest
from tiny_runs import TINY

from ct_cncl.pipeline.prepare_data import PrepareOptions, prepare_data
from ct_cncl.pipeline.workflow import build_workflow, config_file, run_workflow
from ct_cncl.transforms.datalist import DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    prepare_data(PrepareOptions(out=folder, phantoms=2, slices=1, size=64, realizations=2, validation_fraction=0.5))
    return folder


def workflow(data, out, **overrides):
    overrides = TINY | {"dataset_dir": str(data), "output_dir": str(out), "max_epochs": 1} | overrides
    return build_workflow([config_file("train.json")], run_id="training", overrides=overrides)


def test_a_training_at_random_nested_doses_runs(dataset, tmp_path):
    done = run_workflow(workflow(dataset, tmp_path / "run", dose_range=[0.1, 0.5], nested_dose_range=[0.3, 1.0]))
    pairs = done.parser.get_parsed_content("train#dataset")
    assert pairs.dose.dose_range == (0.1, 0.5)
    assert pairs.dose.nested_dose_range == (0.3, 1.0)
    assert (tmp_path / "run" / "last.pt").is_file()


def test_without_a_range_the_stored_images_are_used(dataset, tmp_path):
    pairs = run_workflow(workflow(dataset, tmp_path / "run")).parser.get_parsed_content("train#dataset")
    assert pairs.dose is None


def test_data_without_unit_noise_are_refused_before_anything_runs(tiny_dataset, tmp_path):
    with pytest.raises(DataError, match=r"unit noise for scan0.nii.gz.*--realizations 1"):
        run_workflow(workflow(tiny_dataset, tmp_path / "run", dose_range=[0.1, 0.5]))
