"""Wall and CPU seconds of `ct-cncl evaluate` for 40 slices of 512 x 512 with all metrics, report included.

python benchmarks/evaluation.py [--candidates 1] [--windows full,chest,abdomen] [--slices 40]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from ct_cncl.pipeline.evaluation.run import EvaluateOptions, evaluate_files
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.transforms.phantom import anatomical_phantom


def main() -> None:
    """Make the scans, evaluate them, print the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--windows", default="full,chest,abdomen")
    parser.add_argument("--slices", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        phantom = anatomical_phantom(3, slices=asked.slices, size=512)
        rng = np.random.default_rng(0)
        noise = {"full": 8.0, "low": 30.0} | {f"result{k}": 12.0 + k for k in range(asked.candidates)}
        for name, level in noise.items():
            hu = np.rint(phantom.hu + rng.normal(0, level, phantom.hu.shape)).clip(-1024, 3071).astype(np.int16)
            (root / name).mkdir()
            nib.save(nib.Nifti1Image(hu, phantom.affine), root / name / "scan.nii.gz")
        results = tuple(root / f"result{k}" for k in range(asked.candidates))
        options = EvaluateOptions(
            root / "full", results, root / "out", input=root / "low", windows=tuple(asked.windows.split(","))
        )
        wall, cpu = time.perf_counter(), time.process_time()
        page = write_page(evaluate_files(options), root / "out" / "report.html")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = page.stat().st_size / 1e6
    print(
        f"{asked.slices} slices, input and {asked.candidates} candidates, windows {asked.windows}: {wall:.1f} s wall, {cpu:.1f} s CPU on "
        f"{os.cpu_count()} cores, report {size:.1f} MB"
    )


if __name__ == "__main__":
    main()
