"""Files that torch writes are zip archives; this module checks how large one would become before it is unpacked."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_MOST_BESIDE = 4 << 20
"""Most bytes of all members but the weights; the largest of this project's networks has 0.2 MiB."""
_MOST_MEMBERS = 20_000
_MOST_PACKED = 8
"""Torch stores weights uncompressed, so it cannot have written a file whose members are this many times larger than the file."""
_SPARE = 1 << 20


class ArchiveError(ValueError):
    """Torch cannot have written this file, or it would become too large; the message continues a sentence that ends in "but it"."""


def check_archive(path: Path) -> None:
    """Refuse a torch file that would unpack to many times its size; a file that is not a zip archive is left to torch.

    Raises:
        ArchiveError: the archive would become too large; the message says how large.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_growth(path, archive)


def check_growth(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a torch archive that would unpack to many times its size.

    Raises:
        ArchiveError: the archive would become too large; the message says how large.
    """
    members = archive.infolist()
    size, beside = sum(m.file_size for m in members), sum(m.file_size for m in members if not _is_data(m.filename))
    if len(members) > _MOST_MEMBERS or size > _MOST_PACKED * path.stat().st_size + _SPARE:
        raise ArchiveError(f"would grow to {size / 2**20:.0f} MiB in {len(members)} parts, which torch never writes")
    if beside > _MOST_BESIDE + path.stat().st_size // 4:
        raise ArchiveError(f"holds {beside / 2**20:.0f} MiB besides its weights, where a network has less than one")


def _is_data(name: str) -> bool:
    return bool(re.fullmatch(r"[^/]+/(?:data|constants)/\d+", name))
