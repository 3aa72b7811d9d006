"""Checks of a bundle: a good one stands them all, each fault fails the one that it belongs to."""

import json
import shutil
import subprocess
import zipfile

import nibabel as nib
import numpy as np
import pytest
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.sharing import verify_run
from ct_cncl.pipeline.sharing.bundle_review import review_bundle
from ct_cncl.pipeline.sharing.export import write_torchscript
from ct_cncl.pipeline.sharing.pack import CHECKSUMS, checksum_file
from ct_cncl.pipeline.sharing.verify import FAILED, OK, SKIPPED, VerifyError, review_source, verify
from ct_cncl.transforms import __version__
from ct_cncl.transforms.common.checksums import file_checksum


@pytest.fixture
def packed(packed_tiny):
    return packed_tiny


def unpacked(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder / "ct_cncl"


def sealed(bundle):
    """Checksums of what is there now, so that other checks must find the fault."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{file_checksum(path)}  {path.relative_to(bundle).as_posix()}\n" for path in files]
    (bundle / CHECKSUMS).write_text("".join(lines))


@pytest.mark.slow
def test_a_good_bundle_stands_every_check(packed):
    found = verify(packed)
    assert found.good
    assert [check.name for check in found.checks] == [
        "archive",
        "checksums",
        "configs",
        "rules of the model zoo",
        "model card",
        *verify_run.CHECKS,
    ]
    assert {check.name for check in found.checks if check.state != OK} == {"model card"}  # to be written
    assert found.review.doubts == []
    said = {check.name: check.said for check in found.checks}
    assert "model.onnx" in said["exports equal"]


@pytest.mark.slow
def test_each_fault_fails_its_check(packed, tmp_path):
    bundle = unpacked(packed, tmp_path)
    write_torchscript(tiny_cncl(tmp_path / "other", seed=5)[1], bundle / "models" / "model.ts", metadata={})
    stored = bundle / "example" / "scan_denoised.nii"
    image = nib.load(stored)
    hu = image.get_fdata().astype(np.float32)
    hu[3, 4, 1] += 0.6
    stored.write_bytes(nib.Nifti1Image(hu, image.affine).to_bytes())
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 2
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    sealed(bundle)
    found = verify(bundle)
    said = {check.name: check.said for check in found.checks if check.state == FAILED}
    assert set(said) == {"network in and out", "exports equal", "example's result"}
    assert "model.ts differs" in said["exports equal"]
    assert "model.onnx" not in said["exports equal"]
    assert "differs from the stored one by 0.6 HU" in said["example's result"]
    assert not found.good


def no_process(monkeypatch):
    """Whoever starts a process fails."""

    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def append(bundle, name):
    with (bundle / name).open("ab") as stream:
        stream.write(b" ")


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (lambda b: append(b, "docs/README.md"), "checksums", "docs/README.md is not the file that checksums"),
        (lambda b: (b / "docs" / "new.md").write_text("new"), "checksums", "docs/new.md is not in checksums"),
        (lambda b: (b / "models" / "model.ts").unlink(), "checksums", "models/model.ts is in checksums.sha256, but"),
        (lambda b: (b / CHECKSUMS).write_text("?"), "checksums", "not in checksums.sha256. And"),
        (lambda b: (b / CHECKSUMS).unlink() or append(b, "models/model.pt"), "checksums", "that configs/metadata.json names"),
        (lambda b: (b / "configs/metadata.json").write_text("[]") and sealed(b), "configs", "Expected a mapping in metadata.json"),
        (lambda b: (b / "configs/inference.json").write_text("[]") and sealed(b), "configs", "Expected a mapping in inference.json"),
    ],
)  # fmt: skip
def test_what_is_not_whole_fails_in_a_line_and_is_not_run(packed, tmp_path, monkeypatch, change, check, said):
    bundle = unpacked(packed, tmp_path)
    change(bundle)
    no_process(monkeypatch)
    found = verify(bundle)
    failed = [one for one in found.checks if (one.name, one.state) == (check, FAILED)]
    assert len(failed) == 1
    assert said in failed[0].said
    assert len(failed[0].said) < 400
    assert (found.checks[-1].name, found.checks[-1].state, found.good) == ("run", SKIPPED, False)


def test_a_packed_bundle_without_checksums_fails(packed, tmp_path, monkeypatch):
    path = tmp_path / packed.name
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(path, "w") as less:
        for member in whole.infolist():
            if not member.filename.endswith(CHECKSUMS):
                less.writestr(member, whole.read(member))
    no_process(monkeypatch)
    assert ("checksums", FAILED) in {(one.name, one.state) for one in verify(path).checks}


def test_a_download_from_the_hub_is_the_same_bundle(packed, tmp_path):
    """MONAI puts the model card at the top, the Hub its attributes, its client a cache of dates and checksums."""
    bundle = unpacked(packed, tmp_path)
    shutil.copy(bundle / "docs" / "README.md", bundle / "README.md")
    (bundle / ".gitattributes").write_text("*.pt filter=lfs\n")
    cache = bundle / ".cache" / "huggingface" / "download" / "models"
    cache.mkdir(parents=True)
    for name in ("model.pt.metadata", "model.pt.lock", "../../.gitignore", "../../CACHEDIR.TAG"):
        (cache / name).write_text("c0ffee")
    found = review_source(bundle)
    assert (found.good, found.review.doubts) == (True, [])
    (cache / "more.py").write_text("")
    assert review_source(bundle).review.doubts == [".cache/huggingface/download/models/more.py: unknown code"]


@pytest.mark.slow
def test_a_bundle_without_an_example_and_with_random_doses(packed, tmp_path):
    bundle = unpacked(packed, tmp_path)
    shutil.rmtree(bundle / "example")
    train = json.loads((bundle / "configs" / "train.json").read_text())
    (bundle / "configs" / "train.json").write_text(
        json.dumps(train | {"patches": train["patches"] | {"dose_range": [0.2, 0.3]}})
    )
    sealed(bundle)
    found = verify(bundle)
    assert found.good
    states = {check.name: check.state for check in found.checks}
    assert {name for name, state in states.items() if state == SKIPPED} == {"example's result", "model card"}


@pytest.mark.slow
def test_a_bundle_whose_code_dies_is_told_so_and_its_code_is_what_ran(packed, tmp_path):
    """With trust, the code that the bundle carries is run, not the installed one."""
    bundle = unpacked(packed, tmp_path)
    (bundle / "ct_cncl" / "pipeline" / "networks" / "__init__.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(VerifyError, match="--trust"):
        verify(bundle)
    found = verify(bundle, trust=True)
    assert {check.name for check in found.checks if check.state == FAILED} >= set(verify_run.CHECKS)


def test_no_exec_starts_no_process_and_imports_nothing_of_it(packed, monkeypatch):
    no_process(monkeypatch)
    found = review_source(packed)
    assert found.good
    assert found.review.findings
    assert {one.status for one in found.review.code} == {"identical"}


def test_the_list_names_expressions_targets_and_code(packed, tmp_path):
    lines = review_bundle(unpacked(packed, tmp_path)).lines()
    text = "\n".join(lines)
    assert "$load_weights(@network_def, @checkpoint)" in text
    assert "ct_cncl.pipeline.networks.CNCL" in text
    assert "ct_cncl/transforms/common/hu.py" in text
    assert "UNKNOWN" not in text
    assert len(lines) == len(set(lines))


def test_a_zip_that_is_not_the_one_beside_its_checksum(packed, tmp_path, monkeypatch):
    for path in (packed, checksum_file(packed)):
        shutil.copy(path, tmp_path)
    checksum_file(tmp_path / packed.name).write_text(f"{'0' * 64}  {packed.name}\n")
    assert ("archive", FAILED) in {(check.name, check.state) for check in review_source(tmp_path / packed.name).checks}
    no_process(monkeypatch)
    assert verify(tmp_path / packed.name).checks[-1].state == SKIPPED


def test_a_zip_with_another_version_in_its_name(packed, tmp_path):
    shutil.copy(packed, tmp_path / "ct_cncl_v7.zip")
    (check,) = [check for check in review_source(tmp_path / "ct_cncl_v7.zip").checks if check.name == "archive"]
    assert (check.state, check.said) == (FAILED, f"it is named ct_cncl_v7.zip, but holds ct_cncl_v{__version__}.zip")
