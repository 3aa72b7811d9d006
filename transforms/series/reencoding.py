"""Converts a data set from one encoding to another. Values keep their bytes; only multi-byte words change their byte order.

Decoding and encoding values again would lose those that cannot be decoded: text in another character set than the stated one, and
private attributes of which only the value representation is known.
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
"""Bytes per word, by value representation. An attribute of unknown representation (UN) is always little-endian (PS3.5, 6.2.2)."""
_BYTES = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "OB", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT")
)


def reencode(dataset: Dataset, *, implicit: bool) -> None:
    """Prepare a data set to be written in little-endian order; attributes read in that encoding are not changed.

    The conversion depends on how each attribute was read, not on the stated transfer syntax.

    Args:
        dataset: the whole data set as read; it is changed in place, together with the items of its sequences.
        implicit: whether it will be written with implicit value representations.
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
        element = dataset[tag]  # a sequence, or a representation that depends on other attributes
        if element.VR == "SQ":
            for item in element.value:
                reencode(item, implicit=implicit)
        elif not little and isinstance(element.value, bytes) and element.VR in _WORDS:
            dataset[tag] = DataElement(tag, element.VR, swapped(element.value, _WORDS[element.VR]))
    dataset.set_original_encoding(implicit, True, dataset.original_character_set)


def representation_of(dataset: Dataset, element: Any) -> str:
    """The value representation of an attribute, determined without decoding its value."""
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
