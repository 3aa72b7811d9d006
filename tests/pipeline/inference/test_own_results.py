"""A study that holds results and derived images: only scans are denoised, whoever sends the rest back, and however often."""

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_archive import write_series
from tiny_weights import Add, scripted, tiny_cncl

from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow
from ct_cncl.transforms.series import ScanError

ALL = ("noise", "content", "disagreement", "removed")


@pytest.fixture(scope="module")
def cncl(tmp_path_factory):
    return tiny_cncl(tmp_path_factory.mktemp("weights"))[0]


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    return scripted(Add(25.0), tmp_path_factory.mktemp("weights") / "add.ts")


def series_of(folder):
    found = {}
    for path in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        found.setdefault(str(ds.SeriesInstanceUID), set()).add(str(ds.SOPInstanceUID))
    return found


def manifest(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_a_study_sent_round_three_times_grows_once(tmp_path, cncl, capsys):
    """As a router does it: all that the archive holds goes in, all that comes out goes into the archive."""
    write_series(tmp_path / "pacs" / "scan", 3)
    held = []
    for number in range(3):
        out = tmp_path / f"out{number}"
        denoise_scans(tmp_path / "pacs", out, weights=cncl, save=ALL)
        printed = capsys.readouterr().out
        for path in out.rglob("*.dcm"):
            target = tmp_path / "pacs" / f"{pydicom.dcmread(path).SOPInstanceUID}.dcm"
            shutil.copy(path, target)
        held.append(series_of(tmp_path / "pacs"))
    assert len(held[0]) == 6
    assert held[0] == held[1] == held[2]
    for kind in ("denoised", *ALL):
        assert f"result of ct-cncl ({kind}); --derived denoises it anyway" in printed
    states = [line["state"] for line in manifest(tmp_path / "out2")]
    assert sorted(states) == ["done", *["refused"] * 5]


def test_only_results_are_refused_in_one_line_and_denoised_on_demand(tmp_path, add):
    write_series(tmp_path / "in", 3)
    (first,) = denoise_scans(tmp_path / "in", tmp_path / "a", weights=add, progress=False)
    with pytest.raises(ScanError, match=r"got only 1 x result of ct-cncl \(denoised\).*--derived") as caught:
        denoise_scans(first, tmp_path / "b", weights=add, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()
    one = next(first.iterdir())
    with pytest.raises(ScanError, match="--derived"):
        denoise_scans(one, tmp_path / "b", weights=add, progress=False)
    (again,) = denoise_scans(first, tmp_path / "b", weights=add, derived=True, progress=False)
    assert len(list(again.iterdir())) == len(list(first.iterdir()))


def test_a_derived_image_within_a_series_is_left_out_and_named(tmp_path, add, capsys):
    write_series(tmp_path / "in", 3)
    files = sorted((tmp_path / "in").iterdir())
    ds = pydicom.dcmread(files[0])
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "AVERAGE"]
    ds.save_as(files[0])
    (result,) = denoise_scans(tmp_path / "in", tmp_path / "out", weights=add)
    assert len(list(result.iterdir())) == len(files) - 1
    assert "left out 1 x average of images (Image Type AVERAGE)" in capsys.readouterr().err
    with pytest.raises(ScanError, match="left out 1 x average"):
        denoise_scans(tmp_path / "in", tmp_path / "strict", weights=add, strict=True, progress=False)


def test_nifti_results_in_a_folder_are_not_denoised_again(tmp_path, add):
    hu = np.random.default_rng(0).integers(-1000, 1000, (8, 7, 3)).astype(np.int16)
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "in" / "a.nii.gz")
    denoise_scans(tmp_path / "in", tmp_path / "out", weights=add, save=("removed",), progress=False)
    for path in (tmp_path / "out").iterdir():
        shutil.copy(path, tmp_path / "in")
    results = denoise_scans(tmp_path / "in", tmp_path / "out2", weights=add, progress=False)
    assert [path.name for path in results] == ["a_denoised.nii.gz"]


def test_deidentified_refusals_name_nobody(tmp_path, add):
    pytest.importorskip("dicomanonymizer")
    write_series(tmp_path / "Doe" / "scan", 3)
    denoise_scans(tmp_path / "Doe", tmp_path / "a", weights=add, progress=False)
    shutil.copytree(tmp_path / "a", tmp_path / "Doe" / "results")
    denoise_scans(tmp_path / "Doe", tmp_path / "out", weights=add, deidentify=True, progress=False)
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert '"refused"' in text
    assert "scan" not in "".join(line["source"] for line in manifest(tmp_path / "out"))


def with_bundle(source, out, weights, **more):
    """As ``python -m monai.bundle run --config_file configs/inference.json`` does it."""
    network = {"_target_": "torch.jit.load", "f": str(weights), "map_location": "cpu"}
    values = {"dataset_dir": str(source), "output_dir": str(out), "network_def": network, "checkpoint": None}
    values |= {"device": "$torch.device('cpu')", "progress": False} | more
    run_workflow(build_workflow([config_file("inference.json")], overrides=values, kind="infer"))
    return sorted(path.name for path in out.rglob("*.nii*"))


def test_the_bundles_inference_passes_over_results_as_the_command_does(tmp_path, add, capsys):
    write_series(tmp_path / "in" / "scan", 3)
    denoise_scans(tmp_path / "in", tmp_path / "first", weights=add, progress=False)
    shutil.copytree(tmp_path / "first", tmp_path / "in" / "results")
    assert len(with_bundle(tmp_path / "in", tmp_path / "a", add)) == 1
    assert "result of ct-cncl (denoised)" in capsys.readouterr().err
    with pytest.raises(ScanError, match=r"got only result of ct-cncl \(denoised\)"):
        with_bundle(tmp_path / "in" / "results", tmp_path / "b", add)
    assert len(with_bundle(tmp_path / "in", tmp_path / "c", add, derived=True)) == 2


def test_results_of_the_bundles_inference_are_known_by_both(tmp_path, add):
    write_series(tmp_path / "in", 3)
    (name,) = with_bundle(tmp_path / "in", tmp_path / "a", add)
    shutil.move(tmp_path / "a" / name, tmp_path / "moved.nii.gz")
    with pytest.raises(ScanError, match=r"result of ct-cncl \(denoised\)"):
        with_bundle(tmp_path / "moved.nii.gz", tmp_path / "b", add)
    with pytest.raises(ScanError, match=r"result of ct-cncl \(denoised\).*--derived"):
        denoise_scans(tmp_path / "moved.nii.gz", tmp_path / "b", weights=add, progress=False)


def test_nifti_results_whose_records_lie_elsewhere_are_known(tmp_path, add):
    """Regression: with --manifest DIR nothing lies beside a result, and nothing told that it is one."""
    hu = np.random.default_rng(0).integers(-1000, 1000, (8, 7, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "a.nii.gz")
    denoise_scans(tmp_path / "a.nii.gz", tmp_path / "out", weights=add, manifest=tmp_path / "records", progress=False)
    with pytest.raises(ScanError, match="--derived"):
        denoise_scans(tmp_path / "out", tmp_path / "again", weights=add, progress=False)
