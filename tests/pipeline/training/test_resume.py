"""A run that was killed ends with the weights of one that was not."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_runs import LOG_LINE, TINY, assignments, same

from ct_cncl.pipeline.training.run import train_bundle

RUN = TINY | {"max_epochs": 40, "train#trainer#clip_grad_norm": 1.0}


@pytest.fixture(scope="module")
def undisturbed(tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_bundle(out=folder, data=tiny_dataset, assignments=assignments(RUN))
    return torch.load(folder / "last.pt", weights_only=True)


def test_kill_9_and_resume_is_bit_identical(tiny_dataset, tmp_path, undisturbed):
    out = tmp_path / "run"
    code = "from ct_cncl.pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "--data", str(tiny_dataset), "--out", str(out), *assignments(RUN)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 400  # on a busy core imports alone take minutes
    while not (out / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    epochs_before = torch.load(out / "last.pt", weights_only=True)["trainer"]["iteration"] // 4
    assert 1 <= epochs_before < RUN["max_epochs"]
    train_bundle(out=out, resume=True)
    assert same(torch.load(out / "last.pt", weights_only=True), undisturbed)
    rows = (out / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(1, RUN["max_epochs"] + 1))]


def test_comparison_can_fail(undisturbed):
    changed = undisturbed["network_def"] | {}
    name = next(iter(changed))
    changed[name] = changed[name] + 1e-7
    assert not same(changed, undisturbed["network_def"])


def test_workers_change_nothing(tiny_dataset, tmp_path, undisturbed):
    train_bundle(
        out=tmp_path / "run", data=tiny_dataset, assignments=assignments(RUN | {"train#dataloader#num_workers": 2})
    )
    result = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert same(result["network_def"], undisturbed["network_def"])


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_resume(tiny_dataset, tmp_path, undisturbed):
    out = tmp_path / "run"
    code = "from ct_cncl.pipeline.cli import main; main()"
    arguments = assignments(RUN | {"max_epochs": 500})
    command = [sys.executable, "-c", code, "train", "--data", str(tiny_dataset), "--out", str(out), *arguments]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    deadline = time.monotonic() + 400  # on a busy core imports alone take minutes
    while not (out / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"ct-cncl train --resume --out {out}" in errors
    assert "Traceback" not in errors
    said = errors.splitlines()  # ignite's own word was an ERROR that ended in a colon
    assert [line for line in said if not re.match(LOG_LINE, line)] == ["", said[-1]]
    assert "ERROR" not in errors
    assert said[-1].startswith("Stopped. ")
    assert 4 <= torch.load(out / "last.pt", weights_only=True)["trainer"]["iteration"] <= 160
    assert not list(out.glob("*.part"))
    train_bundle(out=out, resume=True, assignments=["max_epochs=40"])
    assert same(torch.load(out / "last.pt", weights_only=True)["network_def"], undisturbed["network_def"])
