"""Converts a data set from one encoding to another. Values keep their bytes; only words change byte order.

Decoding and encoding again would lose what does not decode: text in another character set than the one it states, private
attributes whose words nobody knows but by their value representation.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.hooks import raw_element_vr

from ct_cncl.transforms.series.native_pixels import swapped

_WORDS = {
    "US": 2, "SS": 2, "AT": 2, "OW": 2,
    "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
    "FD": 8, "SV": 8, "UV": 8, "OD": 8, "OV": 8,
}  # fmt: skip
"""Bytes of a word by value representation; an attribute of unknown representation (UN) is little-endian always (PS3.5, 6.2.2)."""
_BYTES = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "OB", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT")
)


def reencode(dataset: Dataset, *, implicit: bool) -> None:
    """Make a data set ready to be written in little-endian order; what was read in that encoding stays as it is.

    What counts is how each attribute was read, not what the transfer syntax claims.

    Args:
        dataset: as it was read, whole; items of its sequences are changed too.
        implicit: it will be written with implicit value representations.
    """
    little = dataset.original_encoding[1] is not False
    for tag in list(dataset.keys()):
        element: Any = dataset.get_item(tag)
        if element.is_raw and element.is_little_endian and (element.VR is None) == implicit:
            continue
        vr = representation_of(dataset, element)
        if element.is_raw and vr in _BYTES | _WORDS.keys():
            dataset[tag] = _raw(element, vr, implicit=implicit)
            continue
        element = dataset[tag]  # a sequence, or a representation that other attributes decide
        if element.VR == "SQ":
            for item in element.value:
                reencode(item, implicit=implicit)
        elif not little and isinstance(element.value, bytes) and element.VR in _WORDS:
            dataset[tag] = DataElement(tag, element.VR, swapped(element.value, _WORDS[element.VR]))
    dataset.set_original_encoding(implicit, True, dataset.original_character_set)


def representation_of(dataset: Dataset, element: Any) -> str:
    """An attribute's value representation, found without decoding its value."""
    if not element.is_raw or element.VR == "UN":
        return str(element.VR)
    found: dict[str, Any] = {}
    raw_element_vr(element, found, ds=dataset)
    return str(found["VR"])


def _raw(element: RawDataElement, vr: str, *, implicit: bool) -> RawDataElement:
    value = element.value or b""
    if not element.is_little_endian and vr in _WORDS:
        value = swapped(value, _WORDS[vr])
    return element._replace(VR=None if implicit else vr, value=value, is_implicit_VR=implicit, is_little_endian=True)
