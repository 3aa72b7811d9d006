"""Recognises the dose of a scan by the names of its series and folders.

The words are those of the Low Dose CT Grand Challenge (L067/full_1mm, L067/quarter_1mm, FD_1mm, QD_1mm; Mayo Clinic, 2016) and of
TCIA's LDCT-and-Projection-data ("Full dose images", "Low Dose Images").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Dose = Literal["full", "low", ""]

_WORDS: dict[str, Dose] = {
    **dict.fromkeys(("full", "fd", "fulldose", "normal", "normaldose", "routine"), "full"),
    **dict.fromkeys(("low", "ld", "lowdose", "quarter", "qd", "quarterdose", "tenth"), "low"),
}
_OF_THE_SCAN = re.compile(r"^(.+?)_(?:FD|QD)(?:_\d+)*$")


def dose_of(names: Iterable[str]) -> Dose:
    """The dose in the first name that has words for exactly one dose; empty if there is no such name.

    Args:
        names: names in order of precedence: the series description, the folder of the series, its parent folder.

    >>> dose_of(["", "quarter_1mm", "L067"])
    'low'
    >>> dose_of(["Full dose images", "1.000000-NA-57239"])
    'full'
    >>> dose_of(["Abdomen", "full_and_low"])
    ''
    """
    for name in names:
        found = {_WORDS[word] for word in _words(name) if word in _WORDS}
        if len(found) == 1:
            return found.pop()
    return ""


def without_dose_words(name: str) -> str:
    """A name in lower case without punctuation and words for a dose; the names of partners often differ only in these.

    >>> without_dose_words("QD_3mm_sharp/L554/quarter_3mm") == without_dose_words("FD_3mm_sharp/L554/full_3mm")
    True
    """
    return " ".join(word for word in _words(name) if word not in _WORDS)


def without_scan(patient: str) -> str:
    """A PatientID without the dose and series number that the Grand Challenge's export appends to it.

    >>> without_scan("L067_QD_3_1")
    'L067'
    >>> without_scan("FD_12")
    'FD_12'
    """
    found = _OF_THE_SCAN.match(patient)
    return found.group(1) if found else patient


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.lower())
