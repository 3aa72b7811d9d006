"""Files that torch writes are zip archives: whether one is as small inside as outside, found before it is unpacked."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_MOST_BESIDE = 4 << 20
"""Bytes of all but the weights; the largest of this project's networks has 0.2 MiB."""
_MOST_MEMBERS = 20_000
_MOST_PACKED = 8
"""Torch stores weights uncompressed: it did not write a file whose parts are this many times larger than the file."""
_SPARE = 1 << 20


class ArchiveError(ValueError):
    """No file that torch has written, or one that would grow beyond reason; the message fits behind "but it"."""


def check_archive(path: Path) -> None:
    """Refuse a file of torch's that would unpack to much more than it is; what is no zip archive is left to torch.

    Raises:
        ArchiveError: it says how large it would grow.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_growth(path, archive)


def check_growth(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive of torch's that is small and would unpack to much more.

    Raises:
        ArchiveError: it says how large it would grow.
    """
    members = archive.infolist()
    size, beside = sum(m.file_size for m in members), sum(m.file_size for m in members if not _is_data(m.filename))
    if len(members) > _MOST_MEMBERS or size > _MOST_PACKED * path.stat().st_size + _SPARE:
        raise ArchiveError(f"would grow to {size / 2**20:.0f} MiB in {len(members)} parts, as no file of torch's does")
    if beside > _MOST_BESIDE + path.stat().st_size // 4:
        raise ArchiveError(f"holds {beside / 2**20:.0f} MiB beside its weights, where a network has less than one")


def _is_data(name: str) -> bool:
    return bool(re.fullmatch(r"[^/]+/(?:data|constants)/\d+", name))
