"""What all pages of this project share: the frame, the styles, and the escaping of names, so that they cannot run as code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ct_cncl.pipeline.report.tables import MINUS, powers

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("theme.css", "page.css", "tables.css")
"""Style sheets of every page in order; those for printing come last."""


def environment(*folders: Path) -> Environment:
    """Make an environment that finds templates in the given folders, then in the frame's ("frame.html", "macros.html").

    Everything that is put into a template is escaped, unless the template marks it as "safe".
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"hu": _hu, "powers": powers, "breakable": _breakable}
    return made


def styles(*more: str) -> str:
    """The style sheet of every page, with further files from the folder of templates."""
    return "\n".join(template_text(name) for name in (*STYLES, *more, "print.css"))


def template_text(name: str) -> str:
    """Contents of a file in the folder of templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hu(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _breakable(name: str) -> Markup:
    """A name with possible line breaks after underscores, for file names."""
    from markupsafe import Markup

    return Markup("_<wbr>").join(name.split("_"))
