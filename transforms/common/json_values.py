"""Conversion of values to strict JSON, and reading of JSON files from untrusted sources."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: the file cannot be read, or is not a regular file (opening a pipe would block forever).
        ValueError: the file is not UTF-8, not JSON, or too deeply nested for the parser.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return parsed_json(path.read_text(encoding="utf-8"))


def parsed_json(text: str) -> Any:
    """The value in a JSON text.

    Raises:
        ValueError: the text is not JSON, or too deeply nested for the parser.

    >>> parsed_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def plain(value: Any) -> Any:
    """Convert a value to what strict JSON allows: NumPy scalars and arrays become numbers and lists, non-finite numbers None.

    >>> plain({"a": np.float32(0.5), "b": [float("nan")]})
    {'a': 0.5, 'b': [None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
