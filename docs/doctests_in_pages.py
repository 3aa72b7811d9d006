"""A griffe extension: bare doctests of a docstring become an "Examples:" section, so that the pages show them as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!$).*)*")


def with_sections(text: str) -> str:
    """A docstring's text, each run of doctests indented under a heading of its own."""
    return DOCTEST.sub(lambda found: "Examples:\n" + re.sub(r"(?m)^", "    ", found[0]), text)


class Doctests(Extension):
    """Rewrites docstrings as they are collected."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring and "\n>>> " in obj.docstring.value:
            obj.docstring.value = with_sections(obj.docstring.value)
