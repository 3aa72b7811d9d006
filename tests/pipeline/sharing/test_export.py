"""Exported files give what the network gives, need no code of the project, and are the same bits every time."""

import json
import sys

import numpy as np
import onnxruntime
import pydicom
import pytest
import torch
from series_files import ct_slice, save
from tiny_weights import tiny_cncl
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.sharing.export import ExportError, export_models, write_onnx, write_torchscript
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
from ct_cncl.pipeline.workflow.network import build_network
from ct_cncl.pipeline.workflow.overlays import variant
from ct_cncl.transforms.common.checksums import file_checksum

CPU = torch.device("cpu")
FILES = ("models/model.pt", "models/model.ts", "models/model.onnx", "example/scan.nii", "example/scan_denoised.nii")
METADATA = {"version": "7", "trained_on": {"noise_hu": [10, 20]}}
SIZES = [(64, 64), (37, 90), (8, 9)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder with the exports of a tiny CNCL, and the network."""
    folder = tmp_path_factory.mktemp("exports")
    path, network = tiny_cncl(folder / "run")
    export_models(path, folder, metadata=METADATA)
    return folder, network


def largest_hu(first, second):
    return float((first - second).abs().max()) * 4096


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["model.ts", "model.onnx"])
def test_every_branch_equals_the_networks(exported, name, size):
    folder, network = exported
    weights = open_weights(folder / "models" / name, CPU)
    image = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.branches(image)
        assert largest_hu(weights.network(image), expected.fused) < 0.01
        for got, want in zip(weights.branches(image), expected):
            assert got.shape == (3, 1, *size)
            assert largest_hu(got, want) < 0.01


@pytest.mark.parametrize("name", ["model.ts", "model.onnx"])
def test_exports_say_what_they_were_trained_on_and_which_weights_they_are(exported, name):
    folder, _ = exported
    weights = open_weights(folder / "models" / name, CPU)
    assert weights.trained_on == METADATA["trained_on"]
    assert weights.slices == 1
    if name == "model.ts":
        files = {"metadata.json": ""}
        torch.jit.load(str(folder / "models" / name), _extra_files=files)
        inside = files["metadata.json"]
    else:
        session = onnxruntime.InferenceSession(str(folder / "models" / name))
        inside = session.get_modelmeta().custom_metadata_map["metadata.json"]
    assert json.loads(inside)["weights"]["sha256"] == file_checksum(folder / "models" / "model.pt")


def test_the_shared_checkpoint_is_a_plain_state_dict(exported):
    folder, network = exported
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert set(state) == set(network.state_dict())


def test_the_same_bits_again_and_no_path_of_this_machine(exported, tmp_path):
    folder, _ = exported
    (tmp_path / "elsewhere").mkdir()
    path, _ = tiny_cncl(tmp_path / "elsewhere" / "run")
    export_models(path, tmp_path, metadata=METADATA)
    for name in FILES:
        content = (tmp_path / name).read_bytes()
        assert content == (folder / name).read_bytes(), name
        assert str(tmp_path).encode() not in content
        assert sys.prefix.encode() not in content


def test_cncl_fast_exports_with_weights_that_are_not_zero(tmp_path):
    config = variant("cncl_fast").config()
    network = build_network({key: config[key] for key in NETWORK_KEYS if key in config}).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)
    write_onnx(network, tmp_path / "model.onnx", slices=1, metadata={})
    write_torchscript(network, tmp_path / "model.ts", metadata={})
    image = torch.rand(1, 1, 50, 77, generator=generator)
    with torch.inference_mode():
        expected = network.branches(image)
        assert largest_hu(expected.noise, torch.zeros(1)) > 1
        for name in ("model.onnx", "model.ts"):
            found = open_weights(tmp_path / name, CPU).branches(image)
            assert largest_hu(found.noise, expected.noise) < 0.05
            assert (
                largest_hu(found.fused, expected.fused) < 0.05
            )  # its level is kept by the image without what was padded


def test_three_slices(tmp_path):
    _, network = tiny_cncl(tmp_path / "run", slices=3)
    write_torchscript(network, tmp_path / "model.ts", metadata={})
    write_onnx(network, tmp_path / "model.onnx", slices=3, metadata={})
    for name in ("model.ts", "model.onnx"):
        weights = open_weights(tmp_path / name, CPU)
        assert weights.slices == 3
        image = torch.rand(1, 3, 20, 24)
        with torch.inference_mode():
            assert largest_hu(weights.network(image), network(image)) < 0.01


def test_a_network_of_one_output_exports_it_alone(tmp_path):
    write_onnx(nn.Conv2d(1, 1, 3, padding=1), tmp_path / "one.onnx", slices=1, metadata={})
    weights = open_weights(tmp_path / "one.onnx", CPU)
    assert not weights.has_branches
    assert weights.network(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 9, 9)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match="Expected an ONNX file in"):
        open_weights(tmp_path / "model.onnx", CPU)


def test_a_graph_with_other_names_is_refused(tmp_path):
    torch.onnx.export(
        nn.ReLU(), (torch.zeros(1, 1, 8, 8),), str(tmp_path / "other.onnx"), input_names=["x"], dynamo=False
    )
    with pytest.raises(CheckpointError, match="Expected the input image and the outputs result, content, noise"):
        open_weights(tmp_path / "other.onnx", CPU)


def test_without_onnx_runtime_the_extra_is_named(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CheckpointError, match=r"pip install 'ct-cncl\[onnx\]'"):
        open_weights(exported[0] / "models" / "model.onnx", CPU)


def test_without_the_package_onnx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'ct-cncl\[onnx\]'"):
        write_onnx(nn.ReLU(), tmp_path / "model.onnx", slices=1, metadata={})


def test_what_fails_in_the_other_process_is_one_line(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"nothing")
    with pytest.raises(ExportError) as caught:
        export_models(tmp_path / "best.pt", tmp_path, metadata={})
    assert "config.json" in str(caught.value) or "checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.ts", "model.onnx"])
def test_denoise_takes_exports_without_any_config(exported, name, tmp_path):
    """Alone in a folder: there is nothing beside them that could be executed."""
    import nibabel as nib

    from ct_cncl.pipeline.inference.api import denoise_scans

    folder, _ = exported
    alone = tmp_path / "alone" / name
    alone.parent.mkdir()
    alone.write_bytes((folder / "models" / name).read_bytes())
    options = {"device": "cpu", "save": ("noise",)}
    (result,) = denoise_scans(folder / "example" / "scan.nii", tmp_path / "out", weights=alone, **options)
    stored = nib.load(folder / "example" / "scan_denoised.nii").get_fdata()
    assert np.abs(nib.load(result).get_fdata() - stored).max() < 0.01
    scan = nib.load(folder / "example" / "scan.nii").get_fdata()
    assert np.abs(stored - scan).max() > 1


def as_documented(path, ds):
    """What docs/how-to/sharing.md says to do with an export and a DICOM slice as pydicom gives it; HU, (rows, columns)."""
    hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    image = (torch.tensor(hu.T[None, None], dtype=torch.float32) + 1024) / 4096
    if path.suffix == ".ts":
        with torch.inference_mode():
            result = torch.jit.load(str(path))(image).numpy()
    else:
        result = onnxruntime.InferenceSession(str(path)).run(["result"], {"image": image.numpy()})[0]
    return (result * 4096 - 1024)[0, 0].T


@pytest.mark.parametrize("name", ["model.ts", "model.onnx"])
def test_a_dicom_slice_goes_in_transposed(exported, tmp_path, name):
    """Regression: docs said (batch, 1, height, width), and images fed that way are not those that denoise gives."""
    folder, _ = exported
    stored = np.random.default_rng(4).integers(0, 2000, (24, 40)).cumsum(1) % 2000  # its rows are unlike its columns
    path = save(ct_slice(stored, (0, 0, 0), StudyInstanceUID="1.9"), tmp_path / "in" / "a.dcm")
    (made,) = denoise_scans(path.parent, tmp_path / "out", weights=folder / "models" / name, progress=False)
    ds = pydicom.dcmread(path)
    found = as_documented(folder / "models" / name, ds)
    result = next(made.iterdir())
    denoised = pydicom.dcmread(result).pixel_array.astype(float) - 1024
    assert np.abs(found - denoised).max() <= 0.5 + 0.01  # stored in whole HU
    assert np.abs(denoised - ds.pixel_array + 1024).max() > 20
    turned = ct_slice(stored.T.copy(), (0, 0, 0))
    turned.file_meta = ds.file_meta
    assert np.abs(as_documented(folder / "models" / name, turned).T - denoised).max() > 2


def test_exports_name_their_axes(exported):
    folder, _ = exported
    session = onnxruntime.InferenceSession(str(folder / "models" / "model.onnx"))
    for each in (*session.get_inputs(), *session.get_outputs()):
        assert each.shape == ["batch", 1, "columns", "rows"]
    words = session.get_modelmeta().custom_metadata_map["axes"]
    assert "columns, rows" in words
    files = {"metadata.json": ""}
    torch.jit.load(str(folder / "models" / "model.ts"), _extra_files=files)
    assert json.loads(files["metadata.json"])["axes"] == words
