"""pack, verify and publish from the command line."""

import json
import zipfile

import pytest
from tiny_runs import ROOT
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.sharing.pack import checksum_file
from ct_cncl.transforms import __version__

BUNDLE = ROOT / "bundles" / "ct_cncl"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_cncl(tmp_path_factory.mktemp("share") / "run")[0]


@pytest.mark.parametrize("name", ["pack", "verify", "publish"])
def test_help_has_an_example(command, name):
    code, text, _ = command(name, "--help")
    assert code == 0
    assert f"ct-cncl {name} " in text


def own_texts(folder):
    """pack's options for texts of one's own, and the card."""
    sections = [line for line in (BUNDLE / "docs" / "README.md").read_text().splitlines() if line.startswith("#")]
    card = "\n\nOurs.\n\n".join(sections) + "\n"
    (folder / "card.md").write_text(card)
    said = ("--authors", "Jane Doe", "--data-source", "Our scanner", "--license", "CC BY 4.0")
    return ("--card", folder / "card.md", *said), card


def test_pack_verify_publish(command, weights, tmp_path):
    code, text, errors = command("pack", "--weights", weights, "--out", tmp_path / "dist")
    assert code == 0, errors
    path = tmp_path / "dist" / f"ct_cncl_v{__version__}.zip"
    assert checksum_file(path).read_text().split()[0] in text
    with zipfile.ZipFile(path) as archive:
        texts = ("docs/README.md", "docs/data_license.txt", "configs/metadata.json")
        places = sum(archive.read(f"ct_cncl/{name}").count(b"TO BE WRITTEN") for name in texts)
    assert f"{places} places in its card, licence and metadata are still to be written" in text
    code, text, errors = command("verify", path, "--no-exec")
    assert code == 0, errors
    checks = [line.split()[0] for line in text.splitlines()[-20:] if line.startswith(("ok  ", "skipped  "))]
    assert text.splitlines()[-1] == f"No fault found in {checks.count('ok')} checks; {checks.count('skipped')} skipped."
    assert "0 of these are not in the installed release" in text
    assert "ok       rules of the model zoo" in text
    assert "example's result" not in text
    code, _, errors = command("publish", path, "--to", "folder", "--target", tmp_path / "models")
    assert code == 1
    assert "TO BE WRITTEN" in errors
    code, _, errors = command("pack", "--weights", weights, *own_texts(tmp_path)[0], "--out", tmp_path / "written")
    assert code == 0, errors
    assert "to be written" not in text.splitlines()[-1]
    path = tmp_path / "written" / path.name
    code, text, _ = command("publish", path, "--to", "folder", "--target", tmp_path / "models")
    assert code == 0
    assert "Nothing was done" in text
    assert not (tmp_path / "models").exists()
    code, text, _ = command("publish", path, "--to", "folder", "--target", tmp_path / "models", "--no-dry-run")
    assert code == 0
    assert (tmp_path / "models" / path.name).read_bytes() == path.read_bytes()


def test_pack_takes_own_texts_and_seals_what_was_edited(command, tiny_run, tmp_path):
    texts, card = own_texts(tmp_path)
    run = ("pack", "--weights", tiny_run / "best.pt", "--version", "0.2.0+ours", "--changes", "ours")
    code, _, errors = command(*run, *texts, "--out", tmp_path / "dist")
    assert code == 0, errors
    with zipfile.ZipFile(tmp_path / "dist" / "ct_cncl_v0.2.0+ours.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    bundle = tmp_path / "unpacked" / "ct_cncl"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert (metadata["authors"], metadata["data_source"]) == ("Jane Doe", "Our scanner")
    assert (bundle / "docs" / "README.md").read_text() == card
    assert (bundle / "docs" / "data_license.txt").read_text() == "CC BY 4.0\n"
    (bundle / "docs" / "README.md").write_text(card + "Edited.\n")
    assert command("verify", bundle, "--no-exec")[0] == 1
    code, _, errors = command("pack", "--seal", bundle, "--out", tmp_path / "sealed")
    assert code == 0, errors
    (path,) = (tmp_path / "sealed").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("ct_cncl/docs/README.md").endswith(b"Edited.\n")
    code, _, errors = command("pack", "--seal", bundle, "--authors", "Jane Doe", "--out", tmp_path / "other")
    assert code != 0
    assert "expected --seal with --out alone" in errors.replace("\n", " ")


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
