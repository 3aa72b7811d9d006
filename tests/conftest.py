"""Fixtures that whole runs share: a tiny data set, and the overrides that make training take a second."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("CUDA_LAUNCH_BLOCKING", "0")

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "content_predictor#width": 4,
    "content_predictor#depth": 2,
    "content_predictor#norm": "none",
    "noise_predictor#width": 4,
    "noise_predictor#depth": 2,
    "noise_predictor#norm": "none",
    "network_def#init_std": 0.1,
    "discriminator_def#channels": 4,
    "patch_size": 32,
    "patches_per_epoch": 8,
    "batch_size": 2,
    "max_epochs": 2,
    "progress": False,
}
"""Overrides of train.json: no batch norm, deterministic."""


def tiny_case(number: int, shape: tuple[int, int, int] = (48, 40, 2)):
    """A smooth soft-tissue volume and the same with 40 HU of noise."""
    from ct_cncl.transforms.cases import Case, Pair

    def make() -> Pair:
        rng = np.random.default_rng(number)
        label = np.clip(rng.normal(0, 60, shape).cumsum(0).cumsum(1) / 12, -900, 900).astype(np.float32)
        image = label + rng.normal(0, 40, shape).astype(np.float32)
        return Pair(image, label, np.diag([-0.7, -0.7, 5.0, 1.0]), {"truth": "test"})

    return Case(f"patient-{number}", f"scan{number}.nii.gz", 0.25, make)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set: 2 training, 1 validation, 1 test volume of 48 x 40 x 2."""
    from ct_cncl.transforms.prepare import write_dataset

    folder = tmp_path_factory.mktemp("data") / "tiny"
    splits = {"training": [tiny_case(0), tiny_case(1)], "validation": [tiny_case(2)], "test": [tiny_case(3)]}
    write_dataset(folder, splits, salt="test")
    return folder


@pytest.fixture
def tiny() -> dict:
    """A copy of the overrides for a tiny run."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    from ct_cncl.pipeline.workflow import build_workflow, config_file, run_workflow

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(folder)}
    run_workflow(build_workflow([config_file("train.json")], run_id="training", overrides=overrides))
    return folder


def assignments(overrides: dict) -> list[str]:
    """Overrides as KEY=VALUE arguments."""
    import json

    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]


def fire_arguments(overrides: dict) -> list[str]:
    """Overrides as ``--key value`` arguments of monai.bundle."""
    return [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
