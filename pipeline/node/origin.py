"""What a CT image is: an original, a result of ours, a localizer, a reformat, or derived otherwise. Decided here and nowhere else.

From ImageType, DerivationCodeSequence and ContributingEquipmentSequence; descriptions are free text and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

ORIGINS = ("original", "own", "localizer", "reformat", "derived")
"""What an image can be; rules match originals unless they name others."""
ORIGIN_TAGS = (
    "ImageType", "DerivationCodeSequence", "ContributingEquipmentSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""Attributes to be read."""
_OWN_SCHEME, _OWN_MODEL = "99CTCNCL", "ct-cncl"
_REFORMAT = {"MPR", "REFORMATTED", "CURVED", "CPR", "OBLIQUE"}
_DERIVED = {
    "MIP", "MINIP", "MAX_IP", "MIN_IP", "AVERAGE", "AVG", "MEAN", "SCREEN SAVE", "SCREENSAVE", "VOLREN", "VRT", "SSD", "PROJECTION IMAGE",
    "SUBTRACTION", "MONOENERGETIC", "MONO", "VMI", "PERFUSION", "RESAMPLED",
}  # fmt: skip


def origin_of(header: Dataset) -> tuple[str, str]:
    """What an image is and how it says so.

    Args:
        header: with at least :data:`ORIGIN_TAGS`.

    Returns:
        One of :data:`ORIGINS`, and the reason in a few words.

    >>> header = Dataset()
    >>> header.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    >>> origin_of(header)
    ('derived', 'ImageType MIP')
    """
    if any(
        _text(item.get("ManufacturerModelName")).lower() == _OWN_MODEL
        for item in _items(header, "ContributingEquipmentSequence")
    ):
        return "own", "made by ct-cncl, says ContributingEquipmentSequence"
    if any(_text(code.get("CodingSchemeDesignator")) == _OWN_SCHEME for code in _derivation_codes(header)):
        return "own", "made by ct-cncl, says DerivationCodeSequence"
    values = [_text(value).upper() for value in _values(header.get("ImageType"))]
    for origin, words in (("localizer", {"LOCALIZER"}), ("derived", _DERIVED), ("reformat", _REFORMAT)):
        found = [value for value in values if value in words]
        if found:
            return origin, f"ImageType {found[0]}"
    if values[:1] == ["DERIVED"]:
        return "derived", "ImageType DERIVED"
    return "original", "ImageType " + ("\\".join(values[:3]) or "is not stated")


def _derivation_codes(header: Dataset) -> Iterator[Dataset]:
    yield from _items(header, "DerivationCodeSequence")
    for group in _items(header, "PerFrameFunctionalGroupsSequence")[:1]:
        for image in _items(group, "DerivationImageSequence"):
            yield from _items(image, "DerivationCodeSequence")


def _items(holder: Dataset, name: str) -> list[Dataset]:
    value = holder.get(name)
    return list(value) if value else []


def _values(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _text(value: Any) -> str:
    return str(value or "").strip()
