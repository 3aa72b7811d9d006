"""The report at the end of a training: the network's own result on slices as a radiologist looks at them, and the curves."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_runs import TINY, assignments
from unpacking import unpack_plane

from ct_cncl.pipeline.training.run_report import BEYOND_HU, Candidate, evaluate_runs, pairs_by_number, training_report
from ct_cncl.pipeline.training.staged import train_run


def planes(page):
    """Labels and planes in HU of the slices of a page."""
    manifest = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page, re.DOTALL).group(1))
    texts = dict(re.findall(r'<script type="text/plain" id="([^"]*)">([^<]*)<', page))
    return {
        one["label"]: {
            name: unpack_plane(texts[plane["id"]], (one["columns"], one["rows"]), step=plane["step"])
            for name, plane in one["planes"].items()
        }
        for one in manifest["slices"]
    }


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("reported") / "run"
    train_run(out=out, data=tiny_dataset, assignments=assignments(TINY))
    return out


def test_training_ends_with_its_result_on_validation_slices(trained, tiny_dataset):
    import torch

    from ct_cncl.pipeline.inference.streaming import Settings, apply_network
    from ct_cncl.pipeline.weights.load import open_weights

    weights = open_weights(trained / "best.pt", torch.device("cpu"))
    page = (trained / "report.html").read_text()
    found = planes(page)
    assert list(found) == ["validation/0000, slice 0", "validation/0000, slice 1"]
    entry = json.loads((tiny_dataset / "datalist.json").read_text())["validation"][0]
    image, label = (np.asarray(nib.load(tiny_dataset / entry[key]).dataobj, np.float32) for key in ("image", "label"))
    for z, shown in enumerate(found.values()):
        result = apply_network(weights, image[None, None, :, :, z], Settings(save=("noise", "content", "disagreement")))
        np.testing.assert_array_equal(
            shown["reference"], label[:, :, z]
        )  # stored to the left and to the back, as shown
        np.testing.assert_array_equal(shown["input"], image[:, :, z])
        np.testing.assert_allclose(shown["candidate1"], result["denoised"][0], atol=0.51)
        np.testing.assert_allclose(shown["candidate1 noise"], result["noise"][0], atol=0.51)
        np.testing.assert_allclose(shown["candidate1 disagreement"], result["disagreement"][0], atol=0.26)
    for chart in ("PSNR of the result", "PSNR of C(y)", "Training loss"):
        assert f'aria-label="{chart}:' in page


def test_no_report_where_none_is_wanted_and_no_failure_where_it_fails(
    trained, tiny_dataset, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(trained, tmp_path / "run")
    (out / "report.html").unlink()
    train_run(out=out, resume=True, report=False)
    assert not (out / "report.html").exists()

    def broken(_run):
        raise OSError("disk full")

    monkeypatch.setattr("ct_cncl.pipeline.training.run_report.training_report", broken)
    train_run(out=out, resume=True)
    assert "The training is complete, but its report could not be written: disk full" in capsys.readouterr().err


def test_slices_are_shown_as_a_radiologist_looks_at_them(trained, tiny_dataset, tmp_path):
    """Stored to the right and to the front, they are turned: left of the patient at the right, front above."""
    data = shutil.copytree(tiny_dataset, tmp_path / "data")
    content = json.loads((data / "datalist.json").read_text())
    entry = content["validation"][0]
    for key in ("image", "label"):
        volume = nib.load(data / entry[key])
        turned = volume.affine.copy()
        turned[:2] *= -1
        nib.save(nib.Nifti1Image(np.array(volume.dataobj), turned), data / entry[key])  # a copy: the file is mapped
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"dataset_dir": str(data)}))
    before, after = (planes(training_report(folder).read_text()) for folder in (trained, run))
    for label, shown in before.items():
        for name in ("reference", "candidate1", "candidate1 noise"):
            np.testing.assert_array_equal(after[label][name], shown[name][::-1, ::-1])


def test_networks_that_failed_are_named_and_the_others_judged(tiny_dataset):
    pairs = pairs_by_number(Path(tiny_dataset), "validation", [1])
    wild = pairs.image.copy()
    wild[0, 3, 4] = 2 * BEYOND_HU
    history = [{"epoch": "1", "iteration": "4", "psnr": "30.5", "psnr_input": "28.0", "loss": "nan"}]
    candidates = [
        Candidate("wild", "", {"denoised": wild}),
        Candidate("perfect", "", {"denoised": pairs.reference + 1}, history),
        Candidate("unjudged", "", {}, history),
    ]
    found = evaluate_runs(candidates, pairs, title="three", data_range=4096.0)
    assert [method.name for method in found.methods] == ["reference", "input", "wild", "perfect"]
    values = {row.method: row for row in found.slice_rows}
    assert values["candidate1"].values == {}
    assert "NaN or values beyond" in values["candidate1"].missing["psnr_full"]
    assert values["candidate2"].values["rmse"] == pytest.approx(1.0)
    assert values["candidate2"].values["psnr_full"] == pytest.approx(20 * np.log10(4096))
    chart = next(chart for chart in found.charts if chart.key == "training_psnr")
    assert [(curve.name, curve.y.tolist()) for curve in chart.curves] == [
        ("perfect", [30.5]), ("unjudged", [30.5]), ("input", [28.0, 28.0]),
    ]  # fmt: skip
    assert not [chart for chart in found.charts if chart.key == "training_loss"]  # it was never finite
