"""ct-cncl ablate on tiny data: every figure recomputed from checkpoints and slices, interruption, refusals, the page."""

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
from tiny_runs import TINY, assignments

from ct_cncl.pipeline.ablation import run_ablation
from ct_cncl.pipeline.ablation_plan import Ablation
from ct_cncl.pipeline.cli import app as application
from ct_cncl.pipeline.handlers import BudgetSchedule
from ct_cncl.pipeline.inference import denoise_scans
from ct_cncl.pipeline.networks import BranchOutputs
from ct_cncl.pipeline.report.packing import unpack_plane
from ct_cncl.pipeline.training import evaluate_run, train_bundle
from ct_cncl.pipeline.workflow import ConfigError, network_config
from ct_cncl.transforms.datalist import DataError, read_datalist
from ct_cncl.transforms.files import OutputError

OVERRIDES = {
    key: value for key, value in TINY.items() if "norm" not in key and key not in ("max_epochs", "patches_per_epoch")
}
OVERRIDES |= {"network_def#init_std": 0.1, "max_val_slices": 1}
NAMES = ("unet_ln_gelu", "unet_ln_relu+dual")
ITERATIONS = 4
MEASURED = ("seconds a slice", "training seconds")


def ablation(out, data, **options):
    """The tiny ablation of these tests, some options changed."""
    extra = options.pop("extra", {})
    options = {"variants": NAMES, "iterations": ITERATIONS} | options
    return Ablation(out=out, data=data, assignments=tuple(assignments(OVERRIDES | extra)), **options)


def table(out):
    """results.csv by variant, less what is measured by a clock."""
    with (out / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["variant"]: {key: value for key, value in row.items() if key not in MEASURED} for row in rows}


@pytest.fixture(scope="module")
def finished(tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation") / "out"
    run_ablation(ablation(out, tiny_dataset))
    return out


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


def scores(image, truth):
    """PSNR, SSIM (range 4096 HU) and RMSE by their definitions and scikit-image."""
    rmse = math.sqrt(np.mean((image.astype(np.float64) - truth) ** 2))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity = structural_similarity(image, truth, data_range=4096.0, **options)
    return 20 * math.log10(4096 / rmse), similarity, rmse


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_checkpoint_and_slices_give(finished, tiny_dataset, name):
    row = table(finished)[name]
    slices = list(predictions(finished / "runs" / name, tiny_dataset))
    assert len(slices) == 2
    means = {
        place: np.mean([scores(one[place], one[1]) for one in slices], axis=0) for place in (0, 2, 3, 4)
    }  # input, C(y), y - N(y), result
    headers = ["PSNR dB (range 4096 HU)", "SSIM (range 4096 HU)", "RMSE HU"]
    found = [float(row[header]) for header in headers]
    assert found == pytest.approx(means[4], rel=1e-4)
    assert [float(table(finished)["input"][header]) for header in headers] == pytest.approx(means[0], rel=1e-4)
    for place, branch in ((2, "C(y)"), (3, "y - N(y)")):
        branch_scores = [float(row[f"{branch} {score}"]) for score in ("PSNR dB", "SSIM", "RMSE HU")]
        assert branch_scores == pytest.approx(means[place], rel=1e-4)
        assert branch_scores != pytest.approx(found, rel=1e-3)
    gains = [float(row[header]) for header in ("PSNR gain over input dB", "SSIM gain", "RMSE change HU")]
    assert gains == pytest.approx(means[4] - means[0], rel=1e-3)
    weights = torch.load(finished / "runs" / name / "best.pt", weights_only=True)["network_def"]
    assert int(row["parameters"]) == sum(tensor.numel() for tensor in weights.values())
    assert (row["iterations"], row["patches seen"], row["of epochs"]) == ("4", "8", "4")


def test_variants_are_trained_alike_to_a_learning_rate_near_zero(finished):
    for name in NAMES:
        with (finished / "runs" / name / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["iteration"]) for row in rows] == [1, 2, 3, 4]
        expected = [2e-4 * (0.5 + 0.5 * math.cos(math.pi * done / 4)) for done in range(4)]
        assert [float(row["lr_generator"]) for row in rows] == pytest.approx(expected)
        assert [float(row["lr_discriminator"]) for row in rows] == pytest.approx(expected)
    configs = [json.loads((finished / "runs" / name / "config.json").read_text()) for name in NAMES]
    for key in ("seed", "batch_size", "patch_size", "patches_per_epoch", "dataset_dir", "budget_iterations"):
        assert configs[0][key] == configs[1][key]
    assert configs[0]["network_def"] != configs[1]["network_def"]


def test_best_checkpoint_is_a_run_that_denoises(finished, tiny_dataset, tmp_path):
    entry = read_datalist(tiny_dataset)["validation"][0]
    run = finished / "runs" / NAMES[1]
    (written,) = denoise_scans(Path(entry["image"]), tmp_path / "out", weights=run / "best.pt", progress=False)
    expected = np.stack([one[4] for one in predictions(run, tiny_dataset)], axis=-1)
    result = np.asarray(nib.load(written).dataobj)
    assert np.abs(result - expected).max() <= 0.51


class Killed(BaseException):
    """Like Ctrl-C, and nobody's else."""


def test_killed_in_the_middle_and_repeated_gives_the_same_table(finished, tiny_dataset, tmp_path, monkeypatch):
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
    assert table(out) == table(finished)
    assert (out / "runs" / NAMES[0] / "last.pt").stat().st_mtime_ns == first
    assert (out / "runs" / NAMES[1] / "run.json").read_text().count('"seed"') == 2  # the second start went on
    for name in NAMES:
        whole, resumed = (
            torch.load(folder / "runs" / name / "best.pt", weights_only=True)["network_def"]
            for folder in (finished, out)
        )
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_repeated_when_done_changes_nothing_and_takes_up_a_further_variant(finished, tiny_dataset, monkeypatch):
    before = table(finished)
    with monkeypatch.context() as patch:
        patch.setattr("ct_cncl.pipeline.ablation.train_bundle", None)
        patch.setattr("ct_cncl.pipeline.ablation.evaluate_run", None)
        run_ablation(ablation(finished, tiny_dataset))
    assert table(finished) == before
    trained = []
    monkeypatch.setattr(
        "ct_cncl.pipeline.ablation.train_bundle",
        lambda **options: trained.append(options["out"].name) or train_bundle(**options),
    )
    run_ablation(ablation(finished, tiny_dataset, variants=("unet_relu",)))
    assert trained == ["unet_relu"]
    assert list(table(finished)) == ["input", *NAMES, "unet_relu"]
    assert {name: table(finished)[name] for name in before} == before


def test_evaluations_of_an_older_nps_distance_are_done_anew_without_training(
    finished, tiny_dataset, tmp_path, monkeypatch
):
    out = tmp_path / "earlier"
    shutil.copytree(finished, out)
    texture = out / "runs" / NAMES[0] / "evaluation_validation" / "noise_texture.json"
    today = json.loads(texture.read_text())
    old = {name: value for name, value in today.items() if name != "spectra"} | {"patches": -1}
    texture.write_text(json.dumps(old))
    monkeypatch.setattr("ct_cncl.pipeline.ablation.train_bundle", None)
    judged = []
    monkeypatch.setattr(
        "ct_cncl.pipeline.ablation.evaluate_run",
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
    monkeypatch.setattr("ct_cncl.pipeline.ablation.train_bundle", None)  # neither is trained once more
    run_ablation(wanted)
    assert table(wanted.out) == first


@pytest.fixture
def refused(tiny_dataset, tmp_path, monkeypatch):
    """Run an ablation that must be refused before anything is trained; returns the message."""
    monkeypatch.setattr("ct_cncl.pipeline.ablation.train_bundle", None)

    def refuse(error=ConfigError, out=tmp_path / "out", data=tiny_dataset, **options):
        with pytest.raises(error) as caught:
            run_ablation(ablation(out, data, **options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": None}, "either --minutes or --iterations, but got neither"),
        ({"minutes": 1.0}, "either --minutes or --iterations, but got both"),
        ({"iterations": 0}, "a budget above 0, but got 0"),
        ({"iterations": None, "minutes": -1.0}, "a budget above 0, but got -1.0"),
        ({"iterations": None, "minutes": math.nan}, "a budget above 0, but got nan"),
        ({"variants": ()}, "at least one variant"),
        ({"variants": ("unet_ln_gelu", "unet_ln_gelv")}, "overlay, but got 'unet_ln_gelv'. There are: .*unet_ln_gelu"),
        ({"variants": ("dual", "unet_ca", "dual")}, "dual and dual are the same"),
        ({"variants": ("width16+unet_ca", "unet_ca+width16")}, "width16.unet_ca and unet_ca.width16 are the same"),
        ({"variants": ("paper", "redcnn")}, "redcnn: Expected a key of the config, but got 'network_def#init_std'"),
        ({"extra": {"batch_sise": 1}}, "did you mean batch_size"),
        ({"extra": {"max_epochs": 7}}, "no max_epochs=..., which the ablation sets itself"),
        ({"extra": {"batch_size": 0}}, "batch_size to be a whole number"),
        ({"extra": {"picture_window": "knee"}}, "picture_window to be one of"),
        ({"extra": {"content_predictor#norm": "knee"}}, "unet_ln_gelu: Expected a network that can be built"),
        ({"pictures": 0}, "--pictures of at least 1"),
    ],
)
def test_refuses(refused, options, message, tmp_path):
    assert re.search(message, refused(**options))
    assert not (tmp_path / "out").exists()


def test_refuses_missing_data_and_splits(refused, tmp_path):
    assert "no datalist.json" in refused(DataError, data=tmp_path / "nowhere")
    assert "Expected a split of" in refused(DataError, split="tst")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 8}, "iterations was 4 and is 8"),
        ({"iterations": None, "minutes": 1.0}, "minutes was None and is 1.0"),
        ({"split": "test"}, "split was validation and is test"),
        ({"extra": {"seed": 1}}, "seed was 0 and is 1"),
        ({"extra": {"learning_rate": 0.1}}, "learning_rate was None and is 0.1"),
    ],
)
def test_refuses_the_folder_of_another_ablation(refused, finished, options, message):
    before = (finished / "ablation.json").read_bytes()
    assert message in refused(OutputError, out=finished, **options)
    assert (finished / "ablation.json").read_bytes() == before


def test_refuses_other_data_in_the_same_folder(refused, finished, tiny_dataset, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_dataset.rglob("*"):
        target = other / path.relative_to(tiny_dataset)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    text = (other / "datalist.json").read_text()
    run_ablation_with = {"out": finished, "data": other}
    (other / "datalist.json").write_text(text + "\n")
    assert "data_sha256 was" in refused(OutputError, **run_ablation_with)


def test_overlays_may_move_but_not_become_others(refused, finished, tiny_dataset, tmp_path, monkeypatch):
    record = json.loads((finished / "ablation.json").read_text())
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.json").write_text(json.dumps({"learning_rate": 0.01 if folder == "c" else 0.1}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "ablation.json").write_text(json.dumps(record | {"variants": [["mine", str(tmp_path / "a" / "mine.json")]]}))
    assert "mine to be what it was" in refused(OutputError, out=out, variants=(str(tmp_path / "c" / "mine.json"),))
    started = []
    monkeypatch.setattr("ct_cncl.pipeline.ablation._train", lambda _ablation, one, *_: started.append(one) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_ablation(ablation(out, tiny_dataset, variants=(str(tmp_path / "b" / "mine.json"),)))
    assert [one.name for one in started] == ["mine"]


def test_refuses_a_folder_with_other_files(refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    assert "it holds other files" in refused(OutputError)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_overlay_cannot_change_what_is_alike_and_that_is_said(tiny_dataset, tmp_path, capsys):
    overlay = tmp_path / "greedy.json"
    overlay.write_text(json.dumps({"patch_size": 16, "seed": 5, "learning_rate": 0.01}))
    run_ablation(ablation(tmp_path / "out", tiny_dataset, variants=(f"unet_ln_gelu+{overlay}",), iterations=1))
    config = json.loads((tmp_path / "out" / "runs" / "unet_ln_gelu+greedy" / "config.json").read_text())
    assert (config["patch_size"], config["seed"], config["learning_rate"]) == (32, 0, 0.01)
    said = capsys.readouterr().out
    assert "asks for seed=5 (0 here), patch_size=16 (32 here)" in said


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stopped(_ablation):
        raise KeyboardInterrupt

    monkeypatch.setattr("ct_cncl.pipeline.ablation.run_ablation", stopped)
    monkeypatch.setattr(
        "sys.argv", ["ct-cncl", "ablate", "--with", "dual", "--iterations", "4", "--out", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as caught:
        application.main()
    assert caught.value.code == 130
    assert f"what is done is in {tmp_path / 'o'}. The same command goes on" in capsys.readouterr().err


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


def test_the_page_shows_what_was_judged(finished, tiny_dataset):
    slices, titles, figures = shown((finished / "report.html").read_text())
    assert len(slices) == 2
    for number, name in enumerate(NAMES, start=1):
        key = f"candidate{number}"
        for found, said, maps in zip(slices, figures, predictions(finished / "runs" / name, tiny_dataset), strict=True):
            y, x, content, denoised, result = maps  # stored to the left and to the back, as it is shown
            wanted = {"truth": x, "input": y, key: result, f"{key} content": content, f"{key} noise": y - denoised}
            for plane, hu in wanted.items():
                np.testing.assert_allclose(found[plane], hu, atol=0.52, err_msg=plane)
            np.testing.assert_allclose(found[f"{key} disagreement"], abs(content - denoised), atol=0.27)
            assert said[key] == f"PSNR {scores(result, x)[0]:.2f} dB (full)"
        for view in (
            f"{name} \N{MINUS SIGN} truth",
            f"{name}: C(y) \N{MINUS SIGN} truth",
            f"{name}: disagreement of C and N",
        ):
            assert view in titles


def test_the_page_has_the_table_and_curves_of_result_and_both_branches(finished):
    page = (finished / "report.html").read_text()
    assert "Variants over all slices" in page
    for name in NAMES:
        assert f"{float(table(finished)[name]['PSNR dB (range 4096 HU)']):.2f}" in page
    compared = set(table(finished)) - {"input"}  # another test takes up one more
    assert compared >= set(NAMES)
    for chart in ("PSNR of the result", "PSNR of C(y)", "PSNR of y - N(y)", "Training loss"):
        box = page[page.index(f"<h3>{chart}</h3>") :]
        assert box[: box.index("</figure>")].count("<li>") == len(compared) + (chart != "Training loss")


def test_single_network_has_no_scores_of_branches(tiny_dataset, tmp_path):
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
    row = table(tmp_path / "out")["redcnn"]
    assert row["C(y) PSNR dB"] == row["y - N(y) PSNR dB"] == ""
    assert float(row["PSNR dB (range 4096 HU)"]) == pytest.approx(results[0].row["psnr"])
    slices, titles, _ = shown((tmp_path / "out" / "report.html").read_text())
    assert [set(planes) for planes in slices] == [{"truth", "input", "candidate1"}] * 2
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
