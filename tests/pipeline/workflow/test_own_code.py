"""Own classes that a config names: what is not there, or cannot be imported, is said in one line before anything is made."""

import json

import pytest
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.training.run import train_bundle
from ct_cncl.pipeline.workflow.own_code import check_targets, find_code


@pytest.fixture
def overlay(tmp_path):
    """Write an overlay that names a class of a module beside it, and the module."""

    def write(name, target, code=None):
        if code is not None:
            (tmp_path / f"{name}.py").write_text(code)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"network_def": {"_target_": target}, "discriminator": None}))
        return path

    return write


@pytest.mark.parametrize(
    ("name", "target", "code", "words"),
    [
        ("own_a", "own_a.Nett", "class Net: ...", r"Expected own_a.Nett .*own_a.py\) has no Nett; did you mean Net\?"),
        ("own_b", "own_b.Net", "", r"own_b.py\) has no Net; define Net there"),
        (
            "own_c",
            "own_nowhere.Net",
            None,
            "there is no module own_nowhere. Put own_nowhere.py into .*next to the overlay",
        ),
        ("own_d", "own_d.Net", "class Net(:", r"Expected to import own_d.Net, but got: .*own_d.py.*SyntaxError"),
        ("own_e", "own_e.Net", "import own_not_installed", "Expected to import own_e.Net, .*own_not_installed"),
        ("own_f", "own_f.Net", "raise OSError('no key')", "Expected to import own_f.Net, but got: .*OSError: no key"),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_is_made(
    overlay, tiny_dataset, tmp_path, name, target, code, words
):
    """MONAI's own words were an unexpected ModuleNotFoundError."""
    path = overlay(name, target, code)
    options = {key: value for key, value in TINY.items() if key in ("max_epochs", "batch_size", "patches#size")}
    with pytest.raises(ConfigError, match=words) as caught:
        train_bundle(out=tmp_path / "run", data=tiny_dataset, overlays=[str(path)], assignments=assignments(options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_taken(overlay):
    folders = find_code([overlay("own_g", "own_g.Net", "class Net:\n    class Inner: ...\ndef make(): ...")])
    targets = ["own_g.Net", "own_g.make", "own_g.Net.Inner", "torch.nn.Nothing", "RandFlipd"]
    check_targets(
        {"a": [{"_target_": target} for target in targets]}, folders
    )  # torch's and MONAI's are not ours to judge
