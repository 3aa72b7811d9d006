"""The wheel alone: every command and the bundle, without the checkout."""

import os
import subprocess
import sys
import zipfile

import pytest
from tiny_runs import ROOT, TINY, TINY_NETWORK, fire_arguments


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder in which the wheel is installed, without the editable checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert "ct_cncl/bundle/configs/train.json" in names
    assert "ct_cncl/bundle/configs/research/predictors/narrow.json" in names
    assert "ct_cncl/bundle/docs/README.md" in names
    assert "ct_cncl/bundle/LICENSE" in names
    assert "ct_cncl/pipeline/report/templates/page.html" in names
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "site"


def run(installed, cwd, *arguments):
    """Python with the wheel before (and instead of) the checkout."""
    start = f"import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]; sys.path.insert(0, {str(installed)!r});"
    code = (
        start + "import runpy; module = sys.argv.pop(1); runpy.run_module(module, run_name='__main__', alter_sys=True)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_wheel_carries_code_and_bundle(installed, tmp_path):
    (tmp_path / "where.py").write_text(
        "import ct_cncl.pipeline.workflow.locations as b, ct_cncl.transforms as t; print(b.installed_bundle(), t.__file__, b.__file__)"
    )
    for path in run(installed, tmp_path, "where").split():
        assert path.startswith(str(installed)), path


@pytest.mark.slow
def test_wheel_passes_the_bundle_checks(installed, tmp_path, tiny_dataset, tiny_run):
    configs = installed / "ct_cncl" / "bundle" / "configs"
    common = ["--config_file", str(configs / "inference.json"), "--meta_file", str(configs / "metadata.json")]
    run(installed, tmp_path, "monai.bundle", "verify_net_in_out", "network_def", *common, *fire_arguments(TINY_NETWORK))
    export = [
        "--net_id",
        "network_def",
        "--filepath",
        str(tmp_path / "model.ts"),
        "--ckpt_file",
        str(tiny_run / "best.pt"),
    ]
    export += ["--key_in_ckpt", "network_def"]
    run(installed, tmp_path, "monai.bundle", "ckpt_export", *export, *common, *fire_arguments(TINY_NETWORK))
    assert (tmp_path / "model.ts").is_file()
    training = TINY | {"dataset_dir": str(tiny_dataset), "output_dir": str(tmp_path / "run"), "max_epochs": 1}
    arguments = ["training", "--config_file", str(configs / "train.json"), *fire_arguments(training)]
    run(installed, tmp_path, "monai.bundle", "run", *arguments)
    assert (tmp_path / "run" / "best.pt").is_file()
    (tmp_path / "properties.py").write_text(
        "from monai.bundle import ConfigWorkflow\n"
        f"w = ConfigWorkflow(config_file={str(configs / 'train.json')!r}, workflow_type='train', dataset_dir={str(tiny_dataset)!r},\n"
        f"    output_dir={str(tmp_path / 'other')!r}, **{{'patches#size': 32}})\n"
        "w.initialize()\nprint('missing', w.check_properties())\n"
    )
    assert "missing []" in run(installed, tmp_path, "properties")
