"""ct-cncl ablate on tiny data: every figure recomputed from checkpoints and slices, interruption, the page."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from skimage.metrics import structural_similarity
from tiny_ablation import NAMES, OVERRIDES, ablation, table
from tiny_runs import assignments
from unpacking import unpack_plane

from ct_cncl.pipeline.ablation.plan import Ablation
from ct_cncl.pipeline.ablation.run import _plan_in_words, run_ablation
from ct_cncl.pipeline.cli import app as application
from ct_cncl.pipeline.handlers import BudgetSchedule
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.networks import BranchOutputs
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.transforms.dataset.datalist import read_datalist


def predictions(run, data, split="validation"):
    """Per slice (y, x, C(y), y - N(y), result) in HU, from best.pt and the files alone."""
    parser = ConfigParser()
    parser.read_config(network_config(run / "best.pt"))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(run / "best.pt", weights_only=True)["network_def"])
    for entry in read_datalist(data)[split]:
        image, label = (np.asarray(nib.load(entry[key]).dataobj, dtype=np.float32) for key in ("image", "label"))
        for z in range(image.shape[2]):
            y = torch.from_numpy((image[:, :, z] + 1024) / 4096)[None, None]
            with torch.no_grad():
                content, noise, fused = BranchOutputs(network)(y)
            hu = [tensor[0, 0].numpy() * 4096 - 1024 for tensor in (content, y - noise, fused)]
            yield image[:, :, z], label[:, :, z], *hu


def scores(image, reference):
    """PSNR, SSIM (range 4096 HU) and RMSE by their definitions and scikit-image."""
    rmse = math.sqrt(np.mean((image.astype(np.float64) - reference) ** 2))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity = structural_similarity(image, reference, data_range=4096.0, **options)
    return 20 * math.log10(4096 / rmse), similarity, rmse


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_checkpoint_and_slices_give(finished_ablation, tiny_dataset, name):
    row = table(finished_ablation)[name]
    slices = list(predictions(finished_ablation / "runs" / name, tiny_dataset))
    assert len(slices) == 2
    means = {
        place: np.mean([scores(one[place], one[1]) for one in slices], axis=0) for place in (0, 2, 3, 4)
    }  # input, C(y), y - N(y), result
    headers = ["PSNR dB (range 4096 HU)", "SSIM (range 4096 HU)", "RMSE HU"]
    found = [float(row[header]) for header in headers]
    assert found == pytest.approx(means[4], rel=1e-4)
    assert [float(table(finished_ablation)["input"][header]) for header in headers] == pytest.approx(means[0], rel=1e-4)
    for place, branch in ((2, "C(y)"), (3, "y - N(y)")):
        branch_scores = [float(row[f"{branch} {score}"]) for score in ("PSNR dB", "SSIM", "RMSE HU")]
        assert branch_scores == pytest.approx(means[place], rel=1e-4)
        assert branch_scores != pytest.approx(found, rel=1e-3)
    gains = [float(row[header]) for header in ("PSNR gain over input dB", "SSIM gain", "RMSE change HU")]
    assert gains == pytest.approx(means[4] - means[0], rel=1e-3)
    weights = torch.load(finished_ablation / "runs" / name / "best.pt", weights_only=True)["network_def"]
    assert int(row["parameters"]) == sum(tensor.numel() for tensor in weights.values())
    assert (row["iterations"], row["patches seen"], row["of epochs"]) == ("4", "8", "4")


def test_empty_columns_of_noise_spectra_have_a_reason(finished_ablation):
    said = "No NPS distance (of noise power spectra): no volume has 4 calm soft-tissue patches of 24 x 24 pixels."
    assert said in (finished_ablation / "results.md").read_text()
    assert "no volume has 4 calm soft-tissue patches" in table(finished_ablation)[NAMES[0]]["note"]
    assert table(finished_ablation)[NAMES[0]]["NPS distance to the reference"] == ""


def test_variants_are_trained_alike_to_a_learning_rate_near_zero(finished_ablation):
    for name in NAMES:
        with (finished_ablation / "runs" / name / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["iteration"]) for row in rows] == [1, 2, 3, 4]
        expected = [2e-4 * (0.5 + 0.5 * math.cos(math.pi * done / 4)) for done in range(4)]
        assert [float(row["lr_generator"]) for row in rows] == pytest.approx(expected)
        assert [float(row["lr_discriminator"]) for row in rows] == pytest.approx(expected)
    configs = [json.loads((finished_ablation / "runs" / name / "config.json").read_text()) for name in NAMES]
    for key in ("seed", "batch_size", "patches", "dataset_dir", "budget_iterations"):
        assert configs[0][key] == configs[1][key]
    assert configs[0]["network_def"] != configs[1]["network_def"]


def test_best_checkpoint_is_a_run_that_denoises(finished_ablation, tiny_dataset, tmp_path):
    entry = read_datalist(tiny_dataset)["validation"][0]
    run = finished_ablation / "runs" / NAMES[1]
    (written,) = denoise_scans(Path(entry["image"]), tmp_path / "out", weights=run / "best.pt", progress=False)
    expected = np.stack([one[4] for one in predictions(run, tiny_dataset)], axis=-1)
    result = np.asarray(nib.load(written).dataobj)
    assert np.abs(result - expected).max() <= 0.51


class Killed(BaseException):
    """Like Ctrl-C, and nobody's else."""


def test_killed_in_the_middle_and_repeated_gives_the_same_table(finished_ablation, tiny_dataset, tmp_path, monkeypatch):
    out, started = tmp_path / "out", BudgetSchedule.iteration_started

    def killed_in_the_second_variant(self, engine):
        if engine.state.iteration == 3 and (out / "results.csv").is_file():
            raise Killed
        started(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(BudgetSchedule, "iteration_started", killed_in_the_second_variant)
        with pytest.raises(Killed):
            run_ablation(ablation(out, tiny_dataset))
    assert list(table(out)) == ["input", NAMES[0]]  # a table of what is done so far
    halfway = torch.load(out / "runs" / NAMES[1] / "last.pt", weights_only=True)["trainer"]
    assert halfway["iteration"] == 2
    first = (out / "runs" / NAMES[0] / "last.pt").stat().st_mtime_ns
    run_ablation(ablation(out, tiny_dataset))
    assert table(out) == table(finished_ablation)
    assert (out / "runs" / NAMES[0] / "last.pt").stat().st_mtime_ns == first
    assert (out / "runs" / NAMES[1] / "run.json").read_text().count('"seed"') == 2  # the second start went on
    for name in NAMES:
        whole, resumed = (
            torch.load(folder / "runs" / name / "best.pt", weights_only=True)["network_def"]
            for folder in (finished_ablation, out)
        )
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_repeated_when_done_changes_nothing_and_takes_up_a_further_variant(
    finished_ablation, tiny_dataset, monkeypatch
):
    before = table(finished_ablation)
    with monkeypatch.context() as patch:
        patch.setattr("ct_cncl.pipeline.ablation.run.train_bundle", None)
        patch.setattr("ct_cncl.pipeline.ablation.run.evaluate_run", None)
        run_ablation(ablation(finished_ablation, tiny_dataset))
    assert table(finished_ablation) == before
    trained = []
    monkeypatch.setattr(
        "ct_cncl.pipeline.ablation.run.train_bundle",
        lambda **options: trained.append(options["out"].name) or train_bundle(**options),
    )
    run_ablation(ablation(finished_ablation, tiny_dataset, variants=("unet_relu",)))
    assert trained == ["unet_relu"]
    assert list(table(finished_ablation)) == ["input", "unet_relu"]  # what is named now is the table
    run_ablation(ablation(finished_ablation, tiny_dataset, variants=(*NAMES, "unet_relu")))
    assert trained == ["unet_relu"]
    assert list(table(finished_ablation)) == ["input", *NAMES, "unet_relu"]
    assert {name: table(finished_ablation)[name] for name in before} == before


def test_evaluations_of_an_older_nps_distance_are_done_anew_without_training(
    finished_ablation, tiny_dataset, tmp_path, monkeypatch
):
    out = tmp_path / "earlier"
    shutil.copytree(finished_ablation, out)
    texture = out / "runs" / NAMES[0] / "evaluation_validation" / "nps_distance.json"
    today = json.loads(texture.read_text())
    old = {name: value for name, value in today.items() if name != "spectra"} | {"patches": -1}
    texture.write_text(json.dumps(old))
    monkeypatch.setattr("ct_cncl.pipeline.ablation.run.train_bundle", None)
    judged = []
    monkeypatch.setattr(
        "ct_cncl.pipeline.ablation.run.evaluate_run",
        lambda run, **options: judged.append(run.parent.name) or evaluate_run(run, **options),
    )
    run_ablation(ablation(out, tiny_dataset))
    assert (judged, json.loads(texture.read_text())) == ([NAMES[0]], today)


def test_minutes_are_those_of_training(tiny_dataset, tmp_path):
    minutes = 0.005
    results = run_ablation(
        ablation(tmp_path / "out", tiny_dataset, variants=NAMES[:1], iterations=None, minutes=minutes)
    )
    row = results[0].row
    assert row["training_seconds"] >= 60 * minutes
    assert row["iterations"] >= 1
    assert row["patches"] == 2 * row["iterations"]
    last = torch.load(tmp_path / "out" / "runs" / NAMES[0] / "last.pt", weights_only=True)["trainer"]
    assert last["budget_used"] == 1.0
    assert last["training_seconds"] == pytest.approx(row["training_seconds"], abs=1e-3)
    assert results[0].curves[-1]["training_seconds"] == row["training_seconds"]
    assert "0.005 min of training" in (tmp_path / "out" / "results.md").read_text()


def test_a_training_that_fails_is_noted_and_the_next_one_goes_on(tiny_dataset, tmp_path, monkeypatch):
    overlay = tmp_path / "wild.json"
    overlay.write_text(json.dumps({"learning_rate": 1e30}))
    wanted = ablation(tmp_path / "out", tiny_dataset, variants=(f"{overlay}", NAMES[0]))
    run_ablation(wanted)
    first = table(wanted.out)
    assert list(first) == ["input", "wild", NAMES[0]]
    assert re.match(
        r"training failed: Expected finite losses, but got loss_\w+ = (nan|inf).* in iteration \d",
        first["wild"]["note"],
    )
    assert float(first[NAMES[0]]["PSNR dB (range 4096 HU)"]) > 0
    assert "the network gave NaN or values beyond" in (wanted.out / "report.html").read_text()
    monkeypatch.setattr("ct_cncl.pipeline.ablation.run.train_bundle", None)  # neither is trained once more
    run_ablation(wanted)
    assert table(wanted.out) == first


def test_an_overlay_cannot_change_what_is_alike_and_that_is_said(tiny_dataset, tmp_path, capsys):
    overlay = tmp_path / "greedy.json"
    overlay.write_text(json.dumps({"patches#size": 16, "seed": 5, "learning_rate": 0.01}))
    run_ablation(ablation(tmp_path / "out", tiny_dataset, variants=(f"unet_ln_gelu+{overlay}",), iterations=1))
    config = json.loads((tmp_path / "out" / "runs" / "unet_ln_gelu+greedy" / "config.json").read_text())
    assert (config["patches"]["size"], config["seed"], config["learning_rate"]) == (32, 0, 0.01)
    said = capsys.readouterr().out
    assert "asks for seed=5 (0 here), patches.size=16 (32 here)" in said


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stopped(_ablation):
        raise KeyboardInterrupt

    monkeypatch.setattr("ct_cncl.pipeline.ablation.run.run_ablation", stopped)
    monkeypatch.setattr(
        "sys.argv", ["ct-cncl", "ablate", "--with", "dual", "--iterations", "4", "--out", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as caught:
        application.main()
    assert caught.value.code == 130
    assert f"Finished work is in {tmp_path / 'o'}; run the same command to resume." in capsys.readouterr().err


def shown(page):
    """What the page's viewer holds: for each slice its label and planes in HU by name, and the titles of all views."""
    manifest = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page, re.DOTALL).group(1))
    texts = dict(re.findall(r'<script type="text/plain" id="([^"]*)">([^<]*)<', page))
    slices = [
        {
            name: unpack_plane(texts[plane["id"]], (one["columns"], one["rows"]), step=plane["step"])
            for name, plane in one["planes"].items()
        }
        for one in manifest["slices"]
    ]
    return slices, [view["title"] for view in manifest["views"]], [one["figures"] for one in manifest["slices"]]


def test_the_page_shows_what_was_judged(finished_ablation, tiny_dataset):
    slices, titles, figures = shown((finished_ablation / "report.html").read_text())
    assert len(slices) == 2
    for number, name in enumerate(NAMES, start=1):
        key = f"candidate{number}"
        for found, said, maps in zip(
            slices, figures, predictions(finished_ablation / "runs" / name, tiny_dataset), strict=True
        ):
            y, x, content, denoised, result = maps  # stored to the left and to the back, as it is shown
            wanted = {"reference": x, "input": y, key: result, f"{key} content": content, f"{key} noise": y - denoised}
            for plane, hu in wanted.items():
                np.testing.assert_allclose(found[plane], hu, atol=0.52, err_msg=plane)
            np.testing.assert_allclose(found[f"{key} disagreement"], abs(content - denoised), atol=0.27)
            assert said[key] == f"PSNR {scores(result, x)[0]:.2f} dB (full)"
        for view in (
            f"{name} \N{MINUS SIGN} reference",
            f"{name}: C(y) \N{MINUS SIGN} reference",
            f"{name}: disagreement of C and N",
        ):
            assert view in titles


def test_the_page_has_the_table_and_curves_of_result_and_both_branches(finished_ablation):
    page = (finished_ablation / "report.html").read_text()
    assert "Variants over all slices" in page
    for name in NAMES:
        assert f"{float(table(finished_ablation)[name]['PSNR dB (range 4096 HU)']):.2f}" in page
    compared = set(table(finished_ablation)) - {"input"}  # another test takes up one more
    assert compared >= set(NAMES)
    for chart in ("PSNR of the result", "PSNR of C(y)", "PSNR of y - N(y)", "Training loss"):
        box = page[page.index(f'aria-label="{chart}:') :]
        assert box[: box.index("</figure>")].count("<li>") == len(compared) + (chart != "Training loss")


def test_the_plan_names_the_whole_before_it_begins():
    options = {"out": Path("out"), "variants": ("a",) * 9}
    said = _plan_in_words(Ablation(**options, minutes=60), [None] * 9)
    assert said == "9 variants, 60 min of training each: about 9.0 hours, plus validation and evaluation"
    said = _plan_in_words(Ablation(**options, iterations=400), [None])
    assert said.startswith(
        "1 variant, 400 iterations of training each; an estimate of the time follows after the first steps"
    )


def test_single_network_has_no_scores_of_branches(tiny_dataset, tmp_path, capsys):
    """And each step has its line: what is done, how long it took, and the whole."""
    extra = {"network_def#width": 4}
    options = {key: value for key, value in OVERRIDES.items() if "predictor" not in key and "network_def" not in key}
    results = run_ablation(
        Ablation(
            out=tmp_path / "out",
            data=tiny_dataset,
            variants=("redcnn",),
            iterations=1,
            assignments=tuple(assignments(options | extra)),
        )
    )
    said = capsys.readouterr().out.splitlines()
    steps = [
        r"1 variant, 1 iterations of training each; .*",
        "1/1  redcnn",
        r"     trained: about \d+ (seconds|minutes)",
    ]
    steps += [
        r"     evaluated on all slices of the validation split: about \d+ (seconds|minutes)",
        r"1 variant in \d+ (seconds|minutes)",
    ]
    assert all(re.fullmatch(step, line) for step, line in zip(steps, said)), said[:6]
    row = table(tmp_path / "out")["redcnn"]
    assert row["C(y) PSNR dB"] == row["y - N(y) PSNR dB"] == ""
    assert float(row["PSNR dB (range 4096 HU)"]) == pytest.approx(results[0].row["psnr"])
    slices, titles, _ = shown((tmp_path / "out" / "report.html").read_text())
    assert [set(planes) for planes in slices] == [{"reference", "input", "candidate1"}] * 2
    assert not [title for title in titles if "C(y)" in title or "N(y)" in title]


def test_what_branch_health_said_is_noted(tiny_dataset, tmp_path, monkeypatch):
    said = iter(["", "C(y) is 9.0 dB below the input", "", "the result is 4.0 dB below its own best"])
    monkeypatch.setattr(
        "ct_cncl.pipeline.handlers.branch_health.branch_warnings",
        lambda *_, **__: [text for text in [next(said)] if text],
    )
    run_ablation(ablation(tmp_path / "out", tiny_dataset, variants=NAMES[:1]))
    assert (
        "branch health warned in 2 of 4 epochs, first in epoch 2: C(y) is 9.0 dB below the input"
        in (table(tmp_path / "out")[NAMES[0]]["note"])
    )
