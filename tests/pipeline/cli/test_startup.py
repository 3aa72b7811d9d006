"""What a command imports before it works: seconds of every start."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_dicom import dicom_slice

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
from ct_cncl.pipeline.workflow.network import build_network
from ct_cncl.pipeline.workflow.run import overlay_file

HEAVY = ("monai", "ignite", "torch", "scipy", "scipy.ndimage", "numba", "matplotlib", "nibabel", "pydicom", "tqdm")


def imported(code: str) -> set[str]:
    """Heavy packages that are imported after ``code`` in a fresh process."""
    code += f"; import sys; print('imported', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_command_line_imports_nothing_heavy():
    assert imported("import ct_cncl.pipeline.cli.app") == set()


def test_every_help_page_needs_nothing_heavy():
    from ct_cncl.pipeline.cli.app import app

    names = [command.callback.__name__ for command in app.registered_commands]
    code = "from typer.testing import CliRunner; from ct_cncl.pipeline.cli.app import app; run = CliRunner().invoke; "
    code += f"assert not any(run(app, [name, '--help']).exit_code for name in {names})"
    assert imported(code) == set()


def fast_definition() -> dict:
    config = json.loads(overlay_file("cncl_fast").read_text()) | {"context_slices": 1}
    return {key: config[key] for key in NETWORK_KEYS if key in config}


@pytest.fixture
def fast_weights(tmp_path):
    """An untrained cncl_fast with its config."""
    definition = fast_definition()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(definition))
    torch.save({"network_def": build_network(definition).state_dict()}, tmp_path / "run" / "best.pt")
    return tmp_path / "run" / "best.pt"


def test_denoising_imports_nothing_it_can_do_without(tmp_path, fast_weights):
    (tmp_path / "scan").mkdir()
    for z in range(2):
        slice_ = dicom_slice(np.full((40, 48), 1064), float(z), 0.7)
        slice_.StudyInstanceUID = slice_.FrameOfReferenceUID = "1.2.4"
        slice_.save_as(tmp_path / "scan" / f"{z}.dcm", enforce_file_format=True)
    code = "import sys; from ct_cncl.pipeline.cli.app import app; "
    code += f"app(['denoise', {str(tmp_path / 'scan')!r}, '--weights', {str(fast_weights)!r}, '--out', {str(tmp_path / 'out')!r}], standalone_mode=False)"
    assert imported(code) & {"monai", "ignite", "scipy.ndimage", "numba", "matplotlib"} == set()
    assert list((tmp_path / "out").rglob("*.dcm"))


def test_a_network_is_built_as_monai_builds_it():
    from monai.bundle import ConfigParser

    definition = fast_definition()
    ours, theirs = build_network(definition), ConfigParser(definition).get_parsed_content("network_def")
    assert str(ours) == str(theirs)
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))


def test_one_predictor_for_both_branches_is_one_network():
    unet = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 2, "depth": 1}
    shared = {
        "_target_": "ct_cncl.pipeline.networks.CNCL",
        "content": "@content_predictor",
        "noise": "@content_predictor",
    }
    shared["fusion"] = {"_target_": "ct_cncl.pipeline.networks.ConvFusion"}
    network = build_network({"content_predictor": unet, "network_def": shared})
    assert network.content is network.noise


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({}, "hold 'network_def'"),
        ({"network_def": "@elsewhere"}, "hold 'elsewhere'"),
        ({"network_def": {"_target_": "os.system", "command": "true"}}, "'os.system', which was not run"),
        ({"network_def": {"_target_": "ct_cncl.pipeline.networks.unet.torch.load"}}, "which was not run"),
    ],
)
def test_what_is_no_network_is_not_built(definition, message):
    with pytest.raises(ConfigError, match=message):
        build_network(definition)
