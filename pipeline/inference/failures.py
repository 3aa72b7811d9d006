"""Wording of the failures of a batch run, for the terminal, records and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.common.redaction import redacted


def failure(error: BaseException, files: Sequence[Path], *, anonymous: bool) -> dict[str, Any]:
    """The content of the record of a scan that failed.

    Args:
        error: why the scan failed.
        files: the scan's files.
        anonymous: as --deidentify asks: remove paths, file names, and values that a library quotes.
    """
    kind = "" if isinstance(error, (ValueError, OSError)) else f"unexpected {type(error).__name__}: "
    text = " ".join(f"{kind}{error}".split())
    if anonymous:  # what precedes "expected" is a path
        text = text[max(text.find("expected"), 0) :]
        for name in sorted({file.name for file in files}, key=len, reverse=True):
            text = text.replace(name, "a file")
        text = redacted(text)
    return {"result": None, "seconds": 0.0, "warnings": [], "error": text}


def outcome_of(scans: int, failed: int, strays: Sequence[str], verb: tuple[str, str] = ("denoise", "denoised")) -> str:
    """Summarise which scans failed, and which files could not be assigned to a scan.

    Args:
        scans: number of scans tried.
        failed: how many of them failed.
        strays: for each unassigned file, what is wrong with it.
        verb: what is done to a scan, as verb and past participle.

    >>> outcome_of(3, 1, [])
    'expected to denoise 3 scans but 1 failed'
    >>> outcome_of(1, 0, ["a.dcm: expected ..."])
    'expected to read every file, and 1 scan is denoised, but 1 file cannot be read (a.dcm: expected ...)'
    """
    unread = f"{counted(len(strays), 'file')} cannot be read ({strays[0]})" if strays else ""
    if failed:
        return f"expected to {verb[0]} {counted(scans, 'scan')} but {failed} failed" + (
            f", and {unread}" if unread else ""
        )
    if not scans:
        return f"expected a scan but none can be put together: {unread}"
    are = "is" if scans == 1 else "are"
    return f"expected to read every file, and {counted(scans, 'scan')} {are} {verb[1]}, but {unread}"
