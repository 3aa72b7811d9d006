"""Inference in bf16: another image, 1 HU from the one in fp32, told apart in all that is written; only where it is asked for."""

import json
import logging
import uuid

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_archive import write_series
from tiny_weights import Add, scripted

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.inference.api import denoise, denoise_scans
from ct_cncl.pipeline.inference.streaming import BRANCHES, Settings, apply_network
from ct_cncl.pipeline.networks.precision import InBF16, chosen_precision, in_precision, is_made_for_bf16
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow
from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.derivation import KINDS, Derivation, derived_uid

CPU = torch.device("cpu")
MOST_HU = 1.5


@pytest.fixture(scope="module")
def shipped():
    """The bundle's own weights: how far bf16 is depends on what was learned."""
    try:
        return open_weights(None, CPU)
    except CheckpointError:
        pytest.skip("this checkout ships no weights")


@pytest.fixture
def made_for_bf16(monkeypatch):
    def say(answer):
        for place in ("ct_cncl.pipeline.networks.precision", "ct_cncl.pipeline.inference.api"):
            monkeypatch.setattr(f"{place}.is_made_for_bf16", lambda device: answer)

    return say


def scan(shape=(96, 80, 2)):
    """Air, fat, tissue and bone in stripes, with noise of 30 HU."""
    hu = np.repeat([-1000.0, -100.0, 50.0, 900.0], shape[0] // 4)[:, None, None] + np.zeros(shape)
    return (hu + 30 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def test_bf16_is_another_image_and_near(shipped):
    full, low = denoise(scan()), denoise(scan(), precision="bf16")
    assert np.array_equal(full, denoise(scan(), precision="fp32"))
    assert np.abs(full - scan()).max() > 50
    assert 0 < np.abs(low - full).mean() < 0.3
    assert np.abs(low - full).max() < MOST_HU


def test_every_branch_is_near(shipped):
    stack = np.moveaxis(scan(), 2, 0)[:, None]
    full = apply_network(shipped, stack, Settings(save=BRANCHES))
    low = apply_network(open_weights(None, CPU, precision="bf16"), stack, Settings(save=BRANCHES))
    assert list(low) == ["denoised", *BRANCHES]
    for kind, image in low.items():
        assert image.dtype == np.float32
        assert 0 < np.abs(image - full[kind]).max() < 2 * MOST_HU, kind


def test_torchscript_is_near_too(shipped, tmp_path):
    """It rounds the image itself, which matters in air."""
    exported = scripted(shipped.network, tmp_path / "model.ts")
    full, low = denoise(scan()), denoise(scan(), weights=exported, precision="bf16")
    off = np.abs(low - full)
    assert 0 < off[48:72].max() < MOST_HU  # tissue
    assert off.max() < 10


def test_strength_0_is_the_scan(tmp_path, shipped):
    assert np.array_equal(denoise(scan(), strength=0.0, precision="bf16"), scan())
    write_series(tmp_path / "in", 1)
    (result,) = denoise_scans(
        tmp_path / "in", tmp_path / "out", strength=0.0, save=("noise",), precision="bf16", progress=False
    )
    for before, after in zip(sorted((tmp_path / "in").iterdir()), sorted(result.iterdir())):
        assert pydicom.dcmread(before).PixelData == pydicom.dcmread(after).PixelData


def test_what_is_written_tells_it_apart(tmp_path):
    """Records, requests, UIDs and descriptions; those of fp32 are what they were before there was a choice."""
    weights = scripted(Add(25.0), tmp_path / "add.ts")
    write_series(tmp_path / "in", 1)
    run = {"weights": weights, "progress": False}

    def made(name, **options):
        (folder,) = denoise_scans(tmp_path / "in", tmp_path / name, **run, **options)
        record = json.loads(next((tmp_path / name).rglob("*_denoised.json")).read_text())
        return pydicom.dcmread(sorted(folder.iterdir())[0]), record

    (full, full_record), (low, low_record) = made("a"), made("b", precision="bf16")
    assert (full_record["precision"], low_record["precision"]) == ("fp32", "bf16")
    assert full_record["request"] != low_record["request"]
    assert full.SOPInstanceUID != low.SOPInstanceUID
    assert full.SeriesInstanceUID != low.SeriesInstanceUID
    assert low.DerivationDescription == f"{full.DerivationDescription}, bf16"
    assert low.SeriesDescription == f"{full.SeriesDescription} bf16"
    with pytest.raises(ScanError, match="made with other options"):
        made("a", precision="bf16")
    made("a", precision="bf16", overwrite=True)
    assert made("a", precision="bf16")[1]["request"] == low_record["request"]  # found done


def test_uids_are_pinned():
    """They may change with the version that they hold, and with nothing else: a PACS knows results by them."""
    named = ["1.2.3", "denoised", "ab", "1", 0.7, "fp32", "none", "", []]
    namespace = uuid.UUID("6f6b1d5e-8f0c-5a55-9a0b-1f3a0c6f2a41")
    expected = f"2.25.{uuid.uuid5(namespace, json.dumps(named)).int}"
    assert derived_uid("1.2.3", Derivation("ab", "1", 0.7), KINDS["denoised"]) == expected


@pytest.mark.parametrize(("made_for_it", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_is_made_for(tmp_path, made_for_bf16, made_for_it, expected):
    """And is kept as that: the other machine's result is not taken for its own."""
    made_for_bf16(made_for_it)
    weights = scripted(Add(25.0), tmp_path / "add.ts")
    assert open_weights(weights, CPU, precision="auto").precision == expected
    nib.save(nib.Nifti1Image(scan().astype(np.int16), np.eye(4)), tmp_path / "a.nii")
    run = {"weights": weights, "progress": False}
    (first,) = denoise_scans(tmp_path / "a.nii", tmp_path / "out", precision=expected, **run)
    stamp = first.stat().st_mtime_ns
    denoise_scans(tmp_path / "a.nii", tmp_path / "out", precision="auto", **run)
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("features", "expected"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, False)])
def test_processors_with_amx_are_made_for_it(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert is_made_for_bf16(CPU) is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not is_made_for_bf16(CPU)


def test_one_line_says_that_it_is_slower(tmp_path, made_for_bf16, caplog):
    weights = scripted(Add(25.0), tmp_path / "add.ts")

    def lines(name):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            denoise(scan(), weights=weights, precision=name)
        return [record.getMessage() for record in caplog.records]

    made_for_bf16(False)
    (line,) = lines("bf16")
    assert "slower than fp32" in line
    assert "\n" not in line
    assert lines("fp32") == lines("auto") == []
    made_for_bf16(True)
    assert lines("bf16") == []


@pytest.mark.parametrize("name", ["fp16", "bf16_any", "half"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=f"Expected precision to be one of fp32, bf16, auto, but got '{name}'"):
        chosen_precision(name, CPU)
    with pytest.raises(ValueError, match="fp32, bf16, auto"):
        denoise(scan(), precision=name)


def test_onnx_has_its_own_precision(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Use the \.pt or \.ts file, or --precision fp32\."):
        denoise(scan(), weights=tmp_path / "model.onnx", precision="bf16")
    pytest.importorskip("onnxruntime")
    from ct_cncl.pipeline.sharing.export import write_onnx

    write_onnx(Add(25.0), tmp_path / "model.onnx", slices=1, metadata={})
    assert open_weights(tmp_path / "model.onnx", CPU, precision="auto").precision == "fp32"


def test_fp32_is_the_network_itself():
    network = Add(1.0)
    assert in_precision(network, device=CPU, precision="fp32") is network
    assert type(in_precision(network, device=CPU, precision="bf16")) is InBF16


def test_the_bundles_inference(shipped, tmp_path):
    nib.save(nib.Nifti1Image(scan(), np.diag([-0.7, -0.7, 2.5, 1.0])), tmp_path / "scan.nii")

    def result(name):
        overrides = {
            "dataset_dir": str(tmp_path / "scan.nii"), "output_dir": str(tmp_path / name), "precision": name,
            "device": "$torch.device('cpu')", "progress": False,
        }  # fmt: skip
        run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))
        return nib.load(tmp_path / name / "scan_denoised.nii").get_fdata()

    full, low = result("fp32"), result("bf16")
    assert np.abs(full - denoise(scan())).max() < 0.01
    assert 0 < np.abs(low - full).max() < MOST_HU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_in_bf16(shipped):
    full = denoise(scan(), device="cpu")
    low = denoise(scan(), device="cuda", precision="bf16")
    assert 0 < np.abs(low - full).max() < 2 * MOST_HU
