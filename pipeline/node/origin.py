"""The origin of a CT image, for the node's rules: original, our own result, localizer, reformat, or otherwise derived.

:mod:`ct_cncl.transforms.series.origin` recognises our own results and derived images. The node is stricter than ``denoise``, since nobody
checks what it receives: an image that says DERIVED, and every reformat, does not count as an original here.
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from ct_cncl.transforms.series import origin as series_origin

ORIGINS = ("original", "own", "localizer", "reformat", "derived")
"""All origins. Rules match originals unless they name others."""
RULE_TAGS = (
    "ImageType",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *series_origin.ORIGIN_TAGS,
)
"""Attributes that must be read to tell the origin."""
_REFORMAT = re.compile(r"\b(?:MPR|CPR|REFORMAT|RESAMPLED)")


def origin_and_reason(header: Dataset) -> tuple[str, str]:
    """The origin of an image, and what in the header says so.

    Args:
        header: with at least the attributes of :data:`RULE_TAGS`.

    Returns:
        One of :data:`ORIGINS`, and the reason in a few words.

    >>> header = Dataset()
    >>> header.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    >>> origin_and_reason(header)
    ('derived', 'maximum intensity projection (Image Type MIP)')
    """
    image_type = header.get("ImageType") or ()
    values = [str(value).strip().upper() for value in ([image_type] if isinstance(image_type, str) else image_type)]
    found = series_origin.origin_of(header)
    reformat = next((value for value in values[2:] if _REFORMAT.search(value)), "")
    signs = (
        ("localizer", "Image Type LOCALIZER" if "LOCALIZER" in values else ""),
        ("own", found.what if found.kind == "result" else ""),
        ("original", found.what if found.kind == "simulated" else ""),
        ("reformat", f"Image Type {reformat}" if reformat else ""),
        ("derived", found.what if found.kind == "derived" else ""),
        ("derived", "Image Type DERIVED" if values[:1] == ["DERIVED"] else ""),
    )
    stated = "Image Type " + ("\\".join(values[:3]) or "is not stated")
    return next(((origin, says) for origin, says in signs if says), ("original", stated))
