"""The audit log: JSON lines that say who sent what, what became of it and where it went. They hold UIDs, but no names."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

AUDIT_FILE = "audit.jsonl"


class Audit:
    """Appends lines to the audit log. The file is opened for each line, so that renaming rotates it.

    A line is on disk before the change that it reports. A kill in between leads to a second line rather than to none.

    Args:
        spool: the node's folder.
    """

    def __init__(self, spool: Path) -> None:
        self.path = spool / AUDIT_FILE

    def say(self, event: str, **content: Any) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
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
