"""Reads and extends the text of DICOM attributes, even if it violates the standard."""

from __future__ import annotations

from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_DESCRIPTION = Tag("SeriesDescription")
_REPLACED = "\ufffd"


def first_text(value: Any) -> str:
    """The first value of an attribute as text, even if a backslash has split a single value into several.

    >>> first_text(["B30f", "3"]), first_text(None)
    ('B30f', '')
    """
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else ""
    return str(value or "").strip()


def one_text(value: Any) -> str:
    """All values of an attribute as one text; slashes replace the backslashes that separate values.

    >>> one_text(["Thorax 1.0", "Lung"])
    'Thorax 1.0/Lung'
    """
    several = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
    return "/".join(str(part) for part in value).strip() if several else str(value or "").strip()


_LONGEST = 64
"""Most characters of a Series Description (LO)."""


def label_description(header: Dataset, label: str) -> None:
    """Append a label to the Series Description, which is shortened if both together would be too long.

    A description that cannot be decoded keeps its bytes: another system may understand them, and replacing them would lose them.

    Args:
        header: data set, changed in place.
        label: ASCII text.
    """
    raw = header.get_item(_DESCRIPTION) if _DESCRIPTION in header else None
    before = one_text(header.get("SeriesDescription"))
    room = _LONGEST - len(label) - 1
    if raw is None or not raw.is_raw or _REPLACED not in before:
        header.SeriesDescription = f"{before[:room]} {label}".strip()
        return
    content = (raw.value or b"").strip(b" \0").replace(b"\\", b"/")[:room] + b" " + label.encode()
    content += b" " * (len(content) % 2)
    header[_DESCRIPTION] = RawDataElement(_DESCRIPTION, "LO", len(content), content, 0, False, True)
