"""The audit log: JSON lines of who sent what, what was made of it and where it went. UIDs, no names."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

AUDIT_FILE = "audit.jsonl"


class Audit:
    """Appends lines; the file is opened for each, so that it can be rotated by renaming it.

    A line is on disk before what it says is: a kill in between leaves it twice rather than not at all.

    Args:
        spool: the node's folder.
    """

    def __init__(self, spool: Path) -> None:
        self.path = spool / AUDIT_FILE

    def say(self, event: str, **content: Any) -> None:
        """Add a line.

        Raises:
            OSError: the disk is full.
        """
        line = json.dumps(
            {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **content}
        )
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, f"{line}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
