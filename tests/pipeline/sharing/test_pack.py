"""The packed bundle: what is in it, that it is the same bits every time, and that its parts fit each other."""

import json
import subprocess
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny_runs import TINY_NETWORK
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.sharing.pack import CHECKSUMS, PackError, carried_code, checksum_file, pack
from ct_cncl.pipeline.sharing.zoo_rules import LARGEST, REQUIRED, SECTIONS, broken_rules
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.run import build_workflow, run_workflow
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError


@pytest.fixture(scope="module")
def packed(packed_tiny, tmp_path_factory):
    """The zip, the folder that it unpacks to, and the network."""
    folder = tmp_path_factory.mktemp("pack")
    with zipfile.ZipFile(packed_tiny) as archive:
        archive.extractall(folder)
    return packed_tiny, folder / "ct_cncl", tiny_cncl(folder / "run")[1]


def test_name_and_checksum(packed):
    path, _, _ = packed
    assert path.name == f"ct_cncl_v{__version__}.zip"
    assert checksum_file(path).read_text() == f"{file_checksum(path)}  {path.name}\n"


def test_the_same_bits_again(packed, tmp_path):
    path, _, _ = packed
    weights, _ = tiny_cncl(tmp_path / "other" / "place")
    (weights.parent / "trained_on.json").write_text(json.dumps({"noise_hu": [10.0, 60.0]}))
    assert pack(tmp_path / "again", weights=weights).read_bytes() == path.read_bytes()


def test_one_top_folder_in_order_and_nothing_of_this_machine(packed):
    path, _, _ = packed
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    assert names == sorted(names)
    assert {name.split("/")[0] for name in names} == {"ct_cncl"}
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {member.external_attr >> 16 for member in members} == {0o100644}
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
    assert not [name for name in names if "__pycache__" in name or "/cli/" in name]


def test_the_zoo_takes_it(packed):
    _, bundle, _ = packed
    assert broken_rules(bundle) == []
    assert set(REQUIRED) <= {path.relative_to(bundle).as_posix() for path in bundle.rglob("*")}


def test_every_file_is_named_with_its_checksum(packed):
    _, bundle, _ = packed
    done = subprocess.run(["sha256sum", "--check", "--quiet", CHECKSUMS], cwd=bundle, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len((bundle / CHECKSUMS).read_text().splitlines()) == sum(path.is_file() for path in bundle.rglob("*")) - 1


def test_it_carries_its_code_and_does_not_ask_for_the_project(packed):
    _, bundle, _ = packed
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert "ct-cncl" not in metadata["required_packages_version"]
    for source, name in carried_code().items():
        assert (bundle / name).read_bytes() == source.read_bytes()
    assert (bundle / "ct_cncl" / "pipeline" / "networks" / "cncl.py").is_file()
    assert (bundle / "ct_cncl" / "transforms" / "common" / "hu.py").is_file()


@pytest.mark.parametrize("name", ["train.json", "inference.json"])
def test_configs_define_the_network_of_the_weights(packed, name):
    _, bundle, _ = packed
    config = json.loads((bundle / "configs" / name).read_text())
    own, tiny = config["network_def"], TINY_NETWORK["network_def"]
    assert (own["_target_"], own["init_std"]) == (tiny["_target_"], tiny["init_std"])
    for key in ("content", "noise", "fusion"):
        same = [part for part in tiny[key] if part != "kernel_size"]
        assert {part: own[key][part] for part in same} == {part: tiny[key][part] for part in same}


def test_metadata_say_which_weights_and_what_they_were_trained_on(packed):
    _, bundle, network = packed
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["weights"]["sha256"] == file_checksum(bundle / "models" / "model.pt")
    for name in ("model.pt", "model.ts", "model.onnx"):
        weights = open_weights(bundle / "models" / name, torch.device("cpu"))
        assert weights.trained_on == {"noise_hu": [10.0, 60.0]}
        image = torch.rand(1, 1, 40, 50)
        with torch.inference_mode():
            assert torch.allclose(weights.network(image), network(image), atol=1e-6)


def test_the_stored_result_is_what_both_ways_of_denoising_give(packed, tmp_path):
    """In whole HU of the scan's frame: `denoise` and the bundle's own inference turn and return slices alike."""
    _, bundle, _ = packed
    scan, stored = (nib.load(bundle / "example" / name).get_fdata() for name in ("scan.nii", "scan_denoised.nii"))
    assert np.abs(stored - scan).max() > 1
    (ours,) = denoise_scans(
        bundle / "example" / "scan.nii", tmp_path / "ours", weights=bundle / "models" / "model.pt", device="cpu"
    )
    options = {
        "dataset_dir": str(bundle / "example" / "scan.nii"),
        "output_dir": str(tmp_path / "monais"),
        "progress": False,
    }
    run_workflow(build_workflow([bundle / "configs" / "inference.json"], overrides=options, kind="infer"))
    for result in (ours, tmp_path / "monais" / "scan_denoised.nii"):
        assert np.abs(nib.load(result).get_fdata() - stored).max() < 0.01


def test_overlays_bring_their_training_settings(tmp_path):
    """Those of cncl_fast, for weights of cncl_fast; and for no others."""
    weights, _ = tiny_cncl(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="cncl_fast define another network"):
        pack(tmp_path / "dist", weights=weights, overlays=["cncl_fast"])
    (tmp_path / "mine.json").write_text(json.dumps(TINY_NETWORK | {"learning_rate": 0.125}))
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY_NETWORK))
    path = pack(tmp_path / "dist", weights=weights, overlays=[str(tmp_path / "mine.json")], version="2", changes="mine")
    with zipfile.ZipFile(path) as archive:
        train = json.loads(archive.read("ct_cncl/configs/train.json"))
        metadata = json.loads(archive.read("ct_cncl/configs/metadata.json"))
    assert path.name == "ct_cncl_v2.zip"
    assert train["learning_rate"] == 0.125
    assert metadata["weights"]["variant"] == "mine"
    assert metadata["changelog"]["2"] == "mine"


def test_a_version_without_a_line_in_the_changelog_is_refused(tmp_path):
    weights, _ = tiny_cncl(tmp_path / "run")
    with pytest.raises(PackError, match="--changes"):
        pack(tmp_path / "dist", weights=weights, version="9.9")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("version", ["", "../x", "1 2/3", "v1", "1\n", "1..2", "1/2", ".1"])
def test_a_version_that_is_none_is_refused(version, tmp_path):
    weights, _ = tiny_cncl(tmp_path / "run")
    with pytest.raises(PackError, match="Expected a version like"):
        pack(tmp_path / "dist", weights=weights, version=version, changes="x")
    assert not (tmp_path / "dist").exists()


def test_an_earlier_zip_is_not_replaced(packed, tmp_path):
    weights, _ = tiny_cncl(tmp_path / "run")
    existing = tmp_path / f"ct_cncl_v{__version__}.zip"
    existing.write_bytes(b"earlier")
    with pytest.raises(OutputError, match="--version"):
        pack(tmp_path, weights=weights)
    assert existing.read_bytes() == b"earlier"


def test_weights_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        pack(tmp_path / "dist", weights=tmp_path / "nothing.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bundle: (bundle / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda bundle: (bundle / "docs" / "data_license.txt").unlink(), "docs/data_license.txt is missing"),
        (lambda bundle: edit(bundle, "configs/metadata.json", '"task"', '"tusk"'), "'task' is a required property"),
        (
            lambda bundle: edit(bundle, "configs/metadata.json", '"version": "', '"version": "7'),
            "no line for version 7",
        ),
        (lambda bundle: edit(bundle, "configs/train.json", '"dataset_dir"', '"data_dir"'), "no dataset_dir"),
        (lambda bundle: edit(bundle, "configs/inference.json", '"network_def":', '"net":'), "no network_def"),
        (lambda bundle: edit(bundle, "docs/README.md", "Limitations", "Boundaries"), "no section 'Limitations'"),
        (lambda bundle: edit(bundle, "docs/README.md", "### Input", "### In"), "does not describe the input"),
        (lambda bundle: swap(bundle, "## Citation", "## References"), "another order"),
        (lambda bundle: (bundle / "docs" / "notes.md").write_text("see /home/jane/x"), "/home/jane: personal paths"),
        (lambda bundle: (bundle / "docs" / "big.md").write_bytes(bytes(LARGEST + 1)), "the zoo accepts at most 25"),
    ],
)
def test_each_rule_of_the_zoo_can_be_broken(packed, tmp_path, change, said):
    import shutil

    bundle = tmp_path / "ct_cncl"
    shutil.copytree(packed[1], bundle, ignore=shutil.ignore_patterns("__pycache__"))
    assert broken_rules(bundle) == []
    change(bundle)
    assert any(said in line for line in broken_rules(bundle)), broken_rules(bundle)


def edit(bundle, name, old, new):
    path = bundle / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def swap(bundle, first, second):
    edit(bundle, "docs/README.md", first, "## ?")
    edit(bundle, "docs/README.md", second, first)
    edit(bundle, "docs/README.md", "## ?", second)


def test_the_zoos_sections_are_those_of_the_specification():
    assert SECTIONS[0] == "Model Overview"
    assert SECTIONS[-1] == "License"
