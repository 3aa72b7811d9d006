"""Comparing two DICOM objects whose bytes may differ, for example by transfer syntax or the encoding of a sequence."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

_HOW_STORED = ("PixelData", "LossyImageCompression", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def same_content(first: Path, second: Path) -> bool:
    """Whether all attributes and all pixels are equal; False if a file cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one, other = pydicom.dcmread(first), pydicom.dcmread(second)
            return _attributes(one) == _attributes(other) and _same_pixels(one, other)
    except Exception:  # pydicom and its decoders raise nearly every built-in exception
        return False


def _attributes(dataset: Dataset) -> dict[int, object]:
    return {
        int(element.tag): element.value
        for element in dataset
        if element.keyword not in _HOW_STORED and element.tag.element != 0 and element.tag.group != 0xFFFC
    }


def _same_pixels(one: Dataset, other: Dataset) -> bool:
    if ("PixelData" in one) != ("PixelData" in other):
        return False
    return "PixelData" not in one or np.array_equal(pixel_array(one, raw=True), pixel_array(other, raw=True))
