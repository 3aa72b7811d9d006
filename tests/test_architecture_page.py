"""docs/explanations/architecture.md: a slice goes through the modules that the page lists, to a file and to a training step."""

import re
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np
import torch
from dicom_archive import write_series
from tiny_pairs import entry
from tiny_patches import pairs
from tiny_runs import ROOT
from tiny_trainer import tiny_network, trainer
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.inference.api import denoise_scans

PAGE = (ROOT / "docs/explanations/architecture.md").read_text(encoding="utf-8")
BY_THE_WAY = {"transforms/common/hu.py", "transforms/anatomy/regions.py"}
"""A unit and a mask: pure functions that the listed modules call with a slice."""
WITHOUT_PIXELS = {"transforms/series/find.py", "transforms/series/derived.py"}
"""Listed for the files and the headers that they see."""
INNER = {
    "transforms/series/native_pixels.py",
    "transforms/series/pixels.py",
    "transforms/series/dicom_file.py",
    "pipeline/networks",
}
"""What a listed module calls, so that pixels may reach it earlier."""


def block(heading):
    """The first indented block under a heading, as lines."""
    return re.search(rf"## {heading}\n(?s:.*?)\n((?:    .*\n)+)", PAGE)[1].splitlines()


def listed(heading):
    """The files and folders that a block lists, in its order."""
    names, parents = [], ("pipeline/", "transforms/")
    for line in block(heading):
        name = line.split()[0]
        found = [f"{parent}{name}" for parent in ("", *parents) if (ROOT / f"{parent}{name}").exists()]
        if re.match(r" {4,6}[a-z_]+(/|\s)", line) and found:
            names.append(found[0])
    return names


@cache
def source(name):
    """A source file of this project, relative to its root; None for others."""
    path = Path(name).resolve()
    inside = (
        path.is_file() and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("pipeline", "transforms")
    )
    return path.relative_to(ROOT).as_posix() if inside else None


def passed(act, side):
    """Sources that images of so many pixels a side pass while something runs, in the order in which they come there."""
    found = {}

    def looked(frame, event, value):
        if event not in ("call", "return") or (file := source(frame.f_code.co_filename)) is None or file in found:
            return
        values = frame.f_locals.values() if event == "call" else [value]
        if any(shown(one, side) for one in values):
            found[file] = True

    threading.setprofile(looked)
    sys.setprofile(looked)
    try:
        act()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(found)


def shown(value, side):
    values = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(one, np.ndarray | torch.Tensor) and one.shape[-2:] == (side, side) for one in values)


def test_a_slice_goes_the_way_that_the_page_shows(tmp_path):
    weights, _ = tiny_cncl(tmp_path)
    write_series(tmp_path / "in", 1, slices=2, side=18)
    denoise_scans(
        tmp_path / "in", tmp_path / "out0", weights=weights, progress=False
    )  # opens the weights for the first time
    way = passed(lambda: denoise_scans(tmp_path / "in", tmp_path / "out", weights=weights, progress=False), 18)
    way = list(dict.fromkeys("pipeline/networks" if path.startswith("pipeline/networks/") else path for path in way))
    page = listed("The way of a slice through `ct-cncl denoise`")
    assert set(way) - BY_THE_WAY == set(page) - WITHOUT_PIXELS
    main = [path for path in page if path not in INNER]
    assert [path for path in way if path in main] == [path for path in main if path not in WITHOUT_PIXELS]


def test_a_scan_goes_to_a_training_step_as_the_page_shows(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (8, 8, 3)).astype(np.int16)
    data = [entry(tmp_path, "a", hu)]

    def step():
        batch = [pairs(data)[k] for k in range(2)]
        assert batch[0]["image"].shape[-2:] == (8, 8)
        trainer(tiny_network()).run()

    way = list(dict.fromkeys("/".join(path.split("/")[:2]) for path in passed(step, 8)))
    page = list(dict.fromkeys(path.removesuffix("/trainer.py") for path in listed("From a scan to a training step")))
    assert page[0] == "transforms/dataset"  # it has written what a step reads
    assert [room for room in way if room in page] == page[1 : page.index("pipeline/handlers")]
    assert set(way) - set(page) <= {"transforms/common", "transforms/anatomy"}
