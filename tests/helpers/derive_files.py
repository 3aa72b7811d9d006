"""Results of a scan written through the slice-by-slice reader and writer, without a network."""

from pathlib import Path

import numpy as np
import pydicom

from ct_cncl.transforms.series.derivation import Derivation
from ct_cncl.transforms.series.find import find_scans
from ct_cncl.transforms.series.results import open_results
from ct_cncl.transforms.series.slices import open_slices

WEIGHTS = "0123456789abcdef" * 4
DONE = Derivation(WEIGHTS, "1.2.3")


def identity(hu: np.ndarray) -> np.ndarray:
    return hu


def derive(source, work: Path, change=identity, *, kinds=("denoised",), derivation=DONE, **options):
    """Write ``change`` of every slice; returns (paths by kind, the writer, the opened slices)."""
    (found,) = find_scans(source)
    scratch, made = work / "scratch", work / "made"
    for folder in (scratch, made):
        folder.mkdir(parents=True)
    slices = open_slices(found, scratch)
    writer = open_results(slices, kinds, made, derivation, **options)
    for number in range(slices.count):
        own = slices.read(number)
        image = np.where(own.padded, own.hu, change(own.hu))
        writer.write(number, own, dict.fromkeys(kinds, image))
    return writer.finish(), writer, slices


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def elements(dataset: pydicom.Dataset) -> dict:
    """All decoded attributes except the pixels, by tag."""
    return {element.tag: (element.VR, element.value) for element in dataset if element.tag.group != 0x7FE0}
