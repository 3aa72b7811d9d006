"""A griffe extension that turns bare doctests of a docstring into an "Examples:" section, so that the pages show them as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!$).*)*")


def with_sections(text: str) -> str:
    """Put each run of doctests in a docstring's text under its own "Examples:" heading."""
    return DOCTEST.sub(lambda found: "Examples:\n" + re.sub(r"(?m)^", "    ", found[0]), text)


class Doctests(Extension):
    """Rewrites docstrings while they are collected."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring and "\n>>> " in obj.docstring.value:
            obj.docstring.value = with_sections(obj.docstring.value)
