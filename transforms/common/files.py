"""Writing so that a reader never sees half a file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ct_cncl.transforms.common.errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; when the block ends well, it takes the place of ``path`` at once.

    On any error the temporary file is removed and ``path`` is as it was.

    Args:
        path: the final name; its folder is made where it is missing.

    Raises:
        OutputError: disk full, no permission, no such place.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Expected to write {path}, but got: {error.strerror or error}. Nothing was changed there; free some space or "
            "choose another output folder."
        ) from error
    finally:
        with suppress(OSError):  # no such place: the error above says so
            temporary.unlink(missing_ok=True)
