"""What all pages of this project share: the frame, the styles, and how names become text that cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ct_cncl.pipeline.report.tables import MINUS, powers

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("theme.css", "page.css", "tables.css")
"""Of every page, in their order; what is for paper comes last."""


def environment(*folders: Path) -> Environment:
    """Where templates are found: the given folders, then those of the frame ("frame.html", "macros.html").

    Everything that is put into a template is escaped, unless a template says "safe" of it.
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
    """The style sheet of every page, with further files of the templates' folder."""
    return "\n".join(template_text(name) for name in (*STYLES, *more, "print.css"))


def template_text(name: str) -> str:
    """A file of the templates' folder."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hu(value: float) -> str:
    return f"{value:g}".replace("-", MINUS)


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, as file names do."""
    from markupsafe import Markup

    return Markup("_<wbr>").join(name.split("_"))
