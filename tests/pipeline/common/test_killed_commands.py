"""``evaluate``, ``interpolate`` and ``ablate``, killed at random moments: the next run gives the same and tidies up."""

import csv
import io
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from evaluation_files import three_patients
from tiny_ablation import ITERATIONS, NAMES, OVERRIDES
from tiny_runs import assignments, same

CODE = "from ct_cncl.pipeline.cli import main; main()"
CLOCK = re.compile(r"seconds|timed_on|created|\.html$")


def contents(out):
    """Every file below ``out`` that no clock decides."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.suffix in {".csv", ".pt", ".json"} and not CLOCK.search(path.name)
    }


def figures(table):
    """The columns of a CSV that no clock decides."""
    return [
        {key: value for key, value in row.items() if "seconds" not in key}
        for row in csv.DictReader(io.StringIO(table.decode()))
    ]


def command(kind, out, runs, scans, data):
    variants = [word for name in NAMES for word in ("--with", name)]
    return {
        "ablate": [
            "ablate",
            *variants,
            "--data",
            data,
            "--iterations",
            ITERATIONS,
            "--out",
            out,
            *assignments(OVERRIDES),
        ],
        "evaluate": ["evaluate", scans / "full", scans / "denoised", "--input", scans / "low", "--out", out],
        "interpolate": ["interpolate", *runs, "--alpha", "0.5", "--out", out],
    }[kind]


def begin(words):
    ready = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=ready,  # noqa: PLW1509
    )  # fmt: skip


@pytest.mark.slow  # each kind is four processes that import torch
@pytest.mark.parametrize("kind", ["evaluate", "interpolate", "ablate"])
def test_a_killed_command_run_again_gives_the_same(tmp_path, tiny_run, tiny_dataset, kind):
    scans = three_patients(tmp_path / "scans")
    runs = (tiny_run, tiny_run)
    started = time.monotonic()
    whole = begin(command(kind, tmp_path / "whole" / "out", runs, scans, tiny_dataset))
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    lasts = time.monotonic() - started
    draws = random.Random(5)
    out = tmp_path / "killed" / "out"
    for how in (signal.SIGKILL, signal.SIGTERM):
        process = begin(command(kind, out, runs, scans, tiny_dataset))
        time.sleep(lasts * draws.uniform(0.4, 0.97))
        process.send_signal(how)
        process.communicate(timeout=60)
    again = begin(command(kind, out, runs, scans, tiny_dataset))
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0 or "--overwrite" in said, said  # one of them was done before its end
    expected, found = (contents(folder) for folder in (tmp_path / "whole" / "out", out))
    assert found.keys() == expected.keys()
    for name in expected:
        if name.endswith("best.pt"):  # torch writes the temporary name into the file
            one, other = (torch.load(folder / name, weights_only=True) for folder in (tmp_path / "whole" / "out", out))
            assert same(one["network_def"], other["network_def"]), name
        elif name.endswith(".csv"):
            assert figures(found[name]) == figures(expected[name]), name
    assert [path.name for path in out.parent.rglob(".*")] == []
