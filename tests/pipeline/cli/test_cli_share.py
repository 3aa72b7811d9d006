"""pack, verify and publish from the command line."""

import pytest
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.sharing.pack import checksum_file
from ct_cncl.transforms import __version__


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_cncl(tmp_path_factory.mktemp("share") / "run")[0]


@pytest.mark.parametrize("name", ["pack", "verify", "publish"])
def test_help_has_an_example(command, name):
    code, text, _ = command(name, "--help")
    assert code == 0
    assert f"ct-cncl {name} " in text


def test_pack_verify_publish(command, weights, tmp_path):
    code, text, errors = command("pack", "--weights", weights, "--out", tmp_path / "dist")
    assert code == 0, errors
    path = tmp_path / "dist" / f"ct_cncl_v{__version__}.zip"
    assert checksum_file(path).read_text().split()[0] in text
    code, text, errors = command("verify", path, "--no-exec")
    assert code == 0, errors
    assert "0 of these are not in the installed release" in text
    assert "ok       rules of the model zoo" in text
    assert "example's result" not in text
    code, text, _ = command("publish", path, "--to", "folder", "--target", tmp_path / "models")
    assert code == 0
    assert "Nothing was done" in text
    assert not (tmp_path / "models").exists()
    code, text, _ = command("publish", path, "--to", "folder", "--target", tmp_path / "models", "--no-dry-run")
    assert code == 0
    assert (tmp_path / "models" / path.name).read_bytes() == path.read_bytes()


def test_verify_says_what_is_unknown_and_fails(command, tmp_path):
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.json").write_text('{"x": "$evil()"}')
    code, text, errors = command("verify", tmp_path / "bundle", "--no-exec")
    assert code == 1
    assert "UNKNOWN   expression    $evil()   (configs/inference.json x)" in text
    assert "1 of these are not in the installed release" in text
    assert errors.startswith("error: Expected a bundle without faults")
    assert "--trust" in command("verify", tmp_path / "bundle")[2]


def test_pack_without_weights_says_where_to_get_them(command, tmp_path):
    from ct_cncl.pipeline.workflow.locations import installed_bundle

    if (installed_bundle() / "models" / "model.pt").is_file():
        pytest.skip("this bundle ships weights")
    code, _, errors = command("pack", "--out", tmp_path)
    assert code == 1
    assert "ct-cncl train" in errors
