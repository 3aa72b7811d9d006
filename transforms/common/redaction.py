"""Redacts messages to this project's own words, so that nothing from a file or its name remains."""

from __future__ import annotations

import builtins
import importlib.util
import os
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from types import CodeType

_PACKAGES = (
    "ct_cncl.transforms.series",
    "ct_cncl.pipeline.inference",
    "ct_cncl.pipeline.weights",
    "ct_cncl.transforms.common",
)
"""Packages whose messages may be about a scan."""
_MARKS = ".,;:()[]'\""
_NUMBER = re.compile(r"-?\d{1,3}(?:\.\d+)?(?:e[+-]\d+)?")
"""Short numbers such as sizes and distances, but not years, dates or identifiers."""
LEFT_OUT = "..."


def redacted(text: str) -> str:
    """Leave out of a message everything but the words of this project's own messages, short numbers and names of error types.

    >>> redacted("expected a complete DICOM file but got a damaged one (ValueError: 'FAMILY^FIRST'); copy or export it again")
    'expected a complete DICOM file but got a damaged one (ValueError: ... copy or export it again'
    """
    words: list[str] = []
    for word in text.split():
        bare = word.strip(_MARKS)
        known = bare in _vocabulary() or _NUMBER.fullmatch(bare) or isinstance(getattr(builtins, bare, None), type)
        if known or not bare:
            words.append(word)
        elif not words or words[-1] != LEFT_OUT:
            words.append(LEFT_OUT)
    return " ".join(words)


@cache
def _vocabulary() -> frozenset[str]:
    """Words of the messages in our own code, without its docstrings, and of the system's error messages."""
    texts = [os.strerror(number) for number in range(1, 133)]
    for name in _modules():
        spec = importlib.util.find_spec(name)
        source = spec.loader.get_source(name) if spec and hasattr(spec.loader, "get_source") else None  # type: ignore[union-attr]
        if source:
            texts += _texts(compile(source, name, "exec", optimize=2))
    return frozenset(bare for text in texts for word in text.split() if (bare := word.strip(_MARKS)))


def _modules() -> Iterator[str]:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for found in pkgutil.iter_modules(spec.submodule_search_locations if spec else ()):
            yield f"{package}.{found.name}"


def _texts(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str) and " " in constant.strip():  # a sentence, not the name of a key or a file
            yield constant
        elif isinstance(constant, CodeType):
            yield from _texts(constant)
