"""Unpacks zip archives into a given folder; nothing is written outside it."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from ct_cncl.transforms.series.scan import ScanError

_MOST_DEFLATED = 1100
"""How many times larger one member may become: deflate compresses by at most 1032 to 1."""
_MOST_PACKED = 100
"""How many times larger an archive may become: CT compresses to a half or a third, a noise-free phantom to a fiftieth."""
_SPARE = 256 << 20
_LEFT_FREE = 64 << 20
_FIRST = b"PK\x03\x04"


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, by its name or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".zip":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(len(_FIRST)) == _FIRST
    except OSError:
        return False


def unzip(path: Path, folder: Path) -> Path:
    """Unpack an archive.

    Args:
        path: the archive.
        folder: an existing, empty folder.

    Returns:
        ``folder``.

    Raises:
        ScanError: the archive is damaged or encrypted, has links or names that lead outside the folder, needs more space than the
            disk has, or is compressed more strongly than scans can be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _check(member, path)
            size = sum(member.file_size for member in members)
            if size > _MOST_PACKED * path.stat().st_size + _SPARE:
                raise ScanError(
                    f"{path}: expected scans but got an archive of {path.stat().st_size / 2**20:.1f} MiB that would grow to {size >> 20} MiB; "
                    "unpack it yourself if you trust it"
                )
            free = shutil.disk_usage(folder).free
            if size > free - _LEFT_FREE:
                raise ScanError(
                    f"{path}: expected {size >> 20} MiB of free space to unpack it but got {free >> 20} MiB; free some space"
                )
            for member in members:
                target = folder.joinpath(*PurePosixPath(member.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("xb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)  # zipfile stops at the size that the member states
    except ScanError:
        raise
    except FileExistsError as error:
        raise ScanError(
            f"{path}: expected every name only once but got {Path(error.filename).name} twice; pack it again"
        ) from error
    except Exception as error:  # zipfile and its decoders raise many kinds of errors on damaged archives
        raise ScanError(
            f"{path}: expected a complete zip archive but got one that cannot be unpacked ({type(error).__name__}: {error}); "
            "pack it again"
        ) from error
    return folder


def _check(member: zipfile.ZipInfo, path: Path) -> None:
    parts = PurePosixPath(member.filename).parts
    outside = ".." in parts or member.filename.startswith("/") or PureWindowsPath(member.filename).drive
    if outside or "\\" in member.filename or "\0" in member.filename or not parts:
        raise ScanError(
            f"{path}: expected names below one folder but got {member.filename!r}; do not trust this archive"
        )
    mode = member.external_attr >> 16
    if mode and not (stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0):
        raise ScanError(
            f"{path}: expected files but {member.filename!r} is a link or a device; do not trust this archive"
        )
    if member.flag_bits & 1:
        raise ScanError(
            f"{path}: expected an archive without a password but {member.filename!r} is encrypted; unpack it yourself"
        )
    if member.file_size > _MOST_DEFLATED * max(member.compress_size, 1):
        raise ScanError(
            f"{path}: expected scans but {member.filename!r} would grow beyond reason; do not trust this archive"
        )
