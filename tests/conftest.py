"""Shared fixtures of whole runs: a tiny data set and a finished tiny run."""

import json
import sys
import zipfile
from pathlib import Path

import monai  # noqa: F401  imported here, so that its log handler never holds a stream that a test captures and closes
import pytest
from tiny_runs import TINY, tiny_case


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set: 2 training, 1 validation, 1 test volume of 48 x 40 x 2."""
    from ct_cncl.transforms.dataset.writer import write_dataset

    folder = tmp_path_factory.mktemp("data") / "tiny"
    splits = {"training": [tiny_case(0), tiny_case(1)], "validation": [tiny_case(2)], "test": [tiny_case(3)]}
    write_dataset(folder, splits, salt="test")
    return folder


@pytest.fixture(scope="session")
def packed_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed bundle with the weights of ``tiny_cncl``, trained on 10 to 60 HU of noise. Copy it to change it."""
    from tiny_weights import tiny_cncl

    from ct_cncl.pipeline.sharing.pack import pack

    folder = tmp_path_factory.mktemp("packed")
    weights, _ = tiny_cncl(folder / "run")
    (folder / "run" / "trained_on.json").write_text(json.dumps({"noise_hu": [10.0, 60.0]}))
    return pack(folder / "dist", weights=weights)


@pytest.fixture(scope="session")
def described_tiny(packed_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``packed_tiny`` with every placeholder of its card, licence and metadata filled in, and sealed again."""
    from ct_cncl.pipeline.sharing.card import CARD, LICENCE_OF_DATA, TO_WRITE
    from ct_cncl.pipeline.sharing.seal import seal

    folder = tmp_path_factory.mktemp("described")
    with zipfile.ZipFile(packed_tiny) as archive:
        archive.extractall(folder)
    bundle = folder / "ct_cncl"
    for name in (CARD, LICENCE_OF_DATA, "configs/metadata.json"):
        (bundle / name).write_text((bundle / name).read_text().replace(TO_WRITE, "For tests"))
    return seal(bundle, folder / "dist")


@pytest.fixture
def tiny() -> dict:
    """A copy of the overrides for a tiny run."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    overrides = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(folder)}
    run_workflow(build_workflow([config_file("train.json")], run_id="training", overrides=overrides))
    return folder


@pytest.fixture(scope="module")
def finished_ablation(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny ablation. A module's tests may continue it."""
    from tiny_ablation import ablation

    from ct_cncl.pipeline.ablation.run import run_ablation

    out = tmp_path_factory.mktemp("ablation") / "out"
    run_ablation(ablation(out, tiny_dataset))
    return out


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run ct-cncl in this process; returns (exit code, standard output, standard error)."""
    from ct_cncl.pipeline.cli import app as application

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ct-cncl", *map(str, arguments)])
        code = 0
        try:
            application.main()
        except SystemExit as error:
            code = error.code or 0
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
