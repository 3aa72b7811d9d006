"""Commands on bad input: one clear line, exit code not 0, nothing half-written."""

import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from tiny_runs import TINY, assignments


def one_error_line(result, *patterns):
    """Exit code, a single error line that matches, no traceback."""
    code, _, errors = result
    assert code not in (0, None), errors
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    for pattern in patterns:
        assert re.search(pattern, lines[0]), lines[0]


def scan(path, shape=(32, 30, 2), affine=None, low=-1000, dtype=np.int16):
    hu = np.random.default_rng(1).integers(low, 300, shape).astype(dtype)
    hu.flat[0] = low
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 5, 1.0]) if affine is None else affine), path)
    return path


def nothing_in(folder):
    return not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("name", ["demo", "prepare", "train", "evaluate", "denoise"])
def test_help_has_an_example(command, name):
    code, text, _ = command(name, "--help")
    assert code == 0
    assert f"ct-cncl {name}" in re.sub(r"\s+", " ", text)


def test_version(command):
    from ct_cncl.transforms import __version__

    assert command("--version")[1].strip() == f"ct-cncl {__version__}"


def test_importing_the_command_line_is_light():
    code = "import sys, ct_cncl.pipeline.cli; print([m for m in ('torch', 'monai', 'numpy', 'nibabel') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("asked", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_soon_sleep_unless_the_user_has_said_otherwise(asked, spins):
    """OpenMP reads this when torch is loaded; a thread that spins for long holds up every other on a busy core."""
    code = "import os, sys; from ct_cncl.pipeline.cli import main; sys.argv[1:] = ['--version']\ntry: main()\nexcept SystemExit: pass\n"
    code += "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | asked
    )
    assert done.stdout.splitlines()[-1] == f"{spins} False"


def test_prepare_refuses_a_missing_folder(command, tmp_path):
    one_error_line(command("prepare", tmp_path / "nowhere", "--out", tmp_path / "data"), "nowhere")
    assert nothing_in(tmp_path / "data")


def test_prepare_refuses_an_empty_folder(command, tmp_path):
    (tmp_path / "empty").mkdir()
    one_error_line(command("prepare", tmp_path / "empty", "--out", tmp_path / "data"), "empty")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [({"shape": (32, 30, 3)}, "same shape"), ({"affine": np.diag([-0.8, -0.7, 5, 1.0])}, "same affine")],
)
def test_prepare_refuses_pairs_that_differ(command, tmp_path, change, pattern):
    for side in ("full", "low"):
        (tmp_path / side).mkdir()
    scan(tmp_path / "full" / "p1_full.nii.gz")
    scan(tmp_path / "low" / "p1_low.nii.gz", **change)
    result = command("prepare", tmp_path / "full", "--low", tmp_path / "low", "--out", tmp_path / "data")
    one_error_line(result, pattern, "p1_full", "p1_low")
    assert nothing_in(tmp_path / "data")


@pytest.mark.parametrize("bad", ["four_d", "rgb", "nan", "not_hu"])
@pytest.mark.parametrize("verb", ["prepare", "denoise"])
def test_unusable_images_are_refused(command, tmp_path, tiny_run, bad, verb):
    source = tmp_path / "in" / "p1.nii.gz"
    source.parent.mkdir()
    if bad == "four_d":
        scan(source, (16, 16, 2, 3))
    elif bad == "rgb":
        pixels = np.zeros((16, 16, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), source)
    elif bad == "nan":
        hu = np.full((16, 16, 2), -100, np.float32)
        hu[3, 4, 1] = np.nan
        nib.save(nib.Nifti1Image(hu, np.eye(4)), source)
    else:
        scan(source, low=0)
    before = source.read_bytes()
    if verb == "prepare":
        result = command("prepare", source, "--out", tmp_path / "out", "--validation-fraction", "0")
    else:
        result = command("denoise", source, "--weights", tiny_run / "best.pt", "--out", tmp_path / "out")
    one_error_line(result, "p1.nii.gz")
    assert nothing_in(tmp_path / "out")
    assert source.read_bytes() == before


def test_prepare_refuses_one_patient_in_two_splits(command, tmp_path):
    for side in ("train", "val"):
        (tmp_path / side).mkdir()
        scan(tmp_path / side / f"p1_{side}.nii.gz")
    result = command("prepare", tmp_path / "train", "--validation", tmp_path / "val", "--out", tmp_path / "data")
    one_error_line(result, "same patient", "p1_train", "p1_val", "--patients")


@pytest.mark.parametrize("dose", ["0", "-1", "25"])
def test_prepare_refuses_a_dose_outside_0_to_1(command, tmp_path, dose):
    one_error_line(command("prepare", tmp_path, f"--dose={dose}", "--out", tmp_path / "data"), "dose fraction")


def test_train_refuses_an_unknown_key_and_suggests(command, tmp_path, tiny_dataset):
    result = command("train", "--data", tiny_dataset, "--out", tmp_path / "run", "max_epoch=3")
    one_error_line(result, "max_epoch", "max_epochs")
    assert nothing_in(tmp_path / "run")


def test_train_refuses_an_unknown_overlay_and_lists_those_there_are(command, tmp_path, tiny_dataset):
    result = command("train", "--data", tiny_dataset, "--out", tmp_path / "run", "--with", "no_such")
    one_error_line(result, "no_such", "narrow")


def test_train_refuses_an_overlay_with_an_unknown_key(command, tmp_path, tiny_dataset):
    (tmp_path / "mine.json").write_text(json.dumps({"learning_rat": 1e-3}))
    result = command("train", "--data", tiny_dataset, "--out", tmp_path / "run", "--with", tmp_path / "mine.json")
    one_error_line(result, "learning_rat", "learning_rate")


def test_train_refuses_a_folder_that_is_no_data_set(command, tmp_path):
    result = command("train", "--data", tmp_path, "--out", tmp_path / "run", *assignments(TINY))
    one_error_line(result, "datalist.json", "ct-cncl prepare")


def test_train_refuses_changed_data(command, tmp_path, tiny_dataset):
    import shutil

    shutil.copytree(tiny_dataset, tmp_path / "data")
    volume = tmp_path / "data" / "training" / "0000_label.nii"
    content = bytearray(volume.read_bytes())
    content[-1] ^= 1
    volume.write_bytes(content)
    result = command("train", "--data", tmp_path / "data", "--out", tmp_path / "run", *assignments(TINY))
    one_error_line(result, "0000_label.nii", "SHA-256")


def test_train_refuses_to_overwrite_a_run(command, tiny_run, tiny_dataset):
    before = (tiny_run / "last.pt").read_bytes()
    result = command("train", "--data", tiny_dataset, "--out", tiny_run, *assignments(TINY))
    one_error_line(result, "--resume")
    assert (tiny_run / "last.pt").read_bytes() == before


def test_train_refuses_to_resume_nothing(command, tmp_path):
    one_error_line(command("train", "--resume", "--out", tmp_path / "run"), "run to resume")


def test_denoise_refuses_weights_of_another_network(command, tmp_path, tiny_run):
    folder = tmp_path / "run"
    folder.mkdir()
    config = json.loads((tiny_run / "config.json").read_text())
    config["network_def"]["content"]["width"] = 6
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "best.pt").write_bytes((tiny_run / "best.pt").read_bytes())
    source = scan(tmp_path / "scan.nii.gz")
    result = command("denoise", source, "--weights", folder / "best.pt", "--out", tmp_path / "out")
    one_error_line(result, "another", "shape")
    assert nothing_in(tmp_path / "out")


def test_denoise_without_weights_says_where_to_get_them(command, tmp_path):
    from ct_cncl.pipeline.workflow.locations import installed_bundle

    if (installed_bundle() / "models" / "model.pt").is_file():
        pytest.skip("this bundle ships weights")
    one_error_line(command("denoise", scan(tmp_path / "scan.nii.gz"), "--out", tmp_path / "out"), "ct-cncl train")


def test_denoise_refuses_to_overwrite_results(command, tmp_path, tiny_run):
    source = scan(tmp_path / "scan.nii.gz")
    arguments = ("denoise", source, "--weights", tiny_run / "best.pt", "--out", tmp_path / "out")
    assert command(*arguments)[0] == 0
    before = (tmp_path / "out" / "scan_denoised.nii.gz").read_bytes()
    assert "kept from an earlier run" in command(*arguments)[1]
    one_error_line(command(*arguments, "--strength", "0.5"), "scan_denoised.nii.gz")
    assert (tmp_path / "out" / "scan_denoised.nii.gz").read_bytes() == before
    assert command(*arguments, "--strength", "0.5", "--overwrite")[0] == 0
    assert (tmp_path / "out" / "scan_denoised.nii.gz").read_bytes() != before


def test_denoise_refuses_an_unknown_device(command, tmp_path, tiny_run):
    source = scan(tmp_path / "scan.nii.gz")
    result = command("denoise", source, "--weights", tiny_run / "best.pt", "--out", tmp_path / "o", "--device", "tpu9")
    one_error_line(result, "tpu9")


def test_unwritable_output_is_one_line(command, tmp_path, tiny_run, tiny_dataset):
    (tmp_path / "file").write_text("a file where a folder should be")
    source = scan(tmp_path / "scan.nii.gz")
    out = tmp_path / "file" / "out"
    one_error_line(command("denoise", source, "--weights", tiny_run / "best.pt", "--out", out), "scan_denoised|file")
    one_error_line(
        command("prepare", "--phantoms", "1", "--validation-fraction", "0", "--slices", "1", "--out", out), "file"
    )
    one_error_line(command("train", "--data", tiny_dataset, "--out", out, *assignments(TINY)), "file")


def test_disk_full_while_training_is_one_line_and_keeps_the_last_checkpoint(
    command, tmp_path, tiny_dataset, monkeypatch
):
    import errno

    import torch

    save, calls = torch.save, []

    def full(content, path, *rest, **options):
        calls.append(path)
        if len(calls) > 3:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(content, path, *rest, **options)

    monkeypatch.setattr(torch, "save", full)
    overrides = TINY | {"max_epochs": 5}
    result = command("train", "--data", tiny_dataset, "--out", tmp_path / "run", *assignments(overrides))
    one_error_line(result, "No space left on device")
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["trainer"]["iteration"] >= 4
    assert not list((tmp_path / "run").glob(".*part"))


def test_evaluate_writes_figures_and_refuses_twice(command, tmp_path, tiny_run):
    arguments = ("evaluate", tiny_run, "progress=false", "--split", "test", "--out", tmp_path / "evaluation")
    code, _, errors = command(*arguments)
    assert code == 0, errors
    assert "range 4096 HU" in errors
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["slices"] == 2
    one_error_line(command(*arguments), "--overwrite")


def test_demo_runs_to_its_end(tmp_path, capfd):
    from ct_cncl.pipeline.training.demo import run_demo

    small = tuple(assignments(TINY | {"max_epochs": 1, "validate#dataset#max_slices": 1}))
    counts = {"training": 1, "validation": 1, "test": 1}
    metrics = run_demo(tmp_path / "demo", phantoms=counts, size=64, assignments=small)
    text = capfd.readouterr().out
    assert "mean over 4 slices" in text
    assert "input" in text
    assert "result" in text
    assert f"{metrics['psnr']:.2f}" in text
    assert (tmp_path / "demo" / "low_dose_denoised.nii.gz").is_file()
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
