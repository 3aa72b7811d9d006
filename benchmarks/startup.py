"""Seconds from start to end of a command: --help, and denoising one slice; and what importing MONAI would add.

.venv/bin/python benchmarks/startup.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import definition, network, options, report
from denoise_series import write_series

MAIN = "from ct_cncl.pipeline.cli import main; main()"


def command(*arguments: str) -> list[str]:
    """Command line that runs ``ct-cncl`` in a fresh process."""
    return [sys.executable, "-c", MAIN, *arguments]


def run(words: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command, the fastest of three runs."""
    found = []
    for _ in range(3):
        before, started = os.times(), time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        found.append((time.perf_counter() - started, used))
    return min(found)


def main() -> None:
    """Measure, and print ratios first."""
    asked = options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "series", 1, 64 if asked.quick else 512)
        (folder / "config.json").write_text(json.dumps(definition("cncl_fast")))
        torch.save({"network_def": network("cncl_fast").state_dict()}, folder / "best.pt")
        denoise = [
            str(folder / "series"),
            "--weights",
            str(folder / "best.pt"),
            "--out",
            str(folder / "out"),
            "--overwrite",
        ]
        tasks = {
            "ct-cncl --help": command("--help"),
            "ct-cncl denoise of one slice": command("denoise", *denoise),
            "import torch, pydicom": [sys.executable, "-c", "import torch, pydicom"],
            "import monai": [sys.executable, "-c", "import monai.bundle, monai.engines"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        took = {what: run(words) for what, words in tasks.items()}
    results: list[dict[str, Any]] = []
    for what, target, floor in (
        ("ct-cncl --help", 0.5, "python -c pass"),
        ("ct-cncl denoise of one slice", 6.0, "import torch, pydicom"),
    ):
        wall, used = took[what]
        floor_s = took[floor][0]
        results.append(
            {
                "what": f"{what}: {wall:.2f} s ({used:.2f} s of CPU time; target: below {target:g} s). Importing MONAI alone: "
                f"{took['import monai'][0]:.2f} s; `{floor}` alone: {floor_s:.2f} s",
                "ratio": took["import monai"][0] / wall,
                "ours": wall,
                "theirs": took["import monai"][0],
                "floor": floor_s,
            }
        )
    report(results, asked)


if __name__ == "__main__":
    main()
