"""Hooks for mkdocs: pages made from the sources, and links that leave docs/.

Nothing is written twice: the start page is README.md, the page of commands comes from the command line, and the Python pages come from
the docstrings.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "model_card.md": "bundles/ct_cncl/docs/README.md",
}
"""Pages of the site, and the files from which they are made."""
API = {
    "functions": ("Denoise, simulate, evaluate, measure noise", "ct_cncl.pipeline", ()),
    "transforms": ("Transforms", "ct_cncl.transforms", ()),
    "physics": ("Physics", "ct_cncl.transforms.physics", ()),
    "series": ("Series", "ct_cncl.transforms.series", ()),
    "networks": ("Networks", "ct_cncl.pipeline.networks", ()),
    "losses": ("Losses", "ct_cncl.pipeline.losses", ()),
    "metrics": ("Metrics", "ct_cncl.pipeline.metrics", ()),
    "evaluation": ("Evaluation", "ct_cncl.pipeline.evaluation", ()),
    "handlers": ("Handlers", "ct_cncl.pipeline.handlers", ()),
}
"""Pages of the Python reference: title, module, and names in it (none: everything that it exports)."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s:]+)((?:#[^)]*)?\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the files of the repository to which a page links."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in PAGES.items()}
    made |= {f"reference/api/{name}.md": api_page(*which) for name, which in API.items()}
    made["reference/commands.md"] = commands_page()
    made["quickstart.md"] = notebook_page(ROOT / "docs" / "quickstart.ipynb")
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for file in list(files.documentation_pages()):
        text = made.get(file.src_uri) or Path(file.abs_src_path).read_text(encoding="utf-8")
        for target in repository_files(file.src_uri, text):
            if files.get_file_from_path(f"repository/{target}.txt") is None:
                files.append(File.generated(config, f"repository/{target}.txt", content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite a page's links to generated pages and to files of the repository."""
    return LINK.sub(lambda found: f"{found[1]}{link(page.file.src_uri, found[2])}{found[3]}", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that would load a part of itself from another site."""
    if found := re.search(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>", output):
        raise PluginError(f"{page.file.src_uri}: expected parts of this site only, but got {found[0]}.")
    return output


def target_of(page: str, written: str) -> str:
    """Path from the repository's root of the file to which a link points."""
    folder = posixpath.dirname(PAGES.get(page, f"docs/{page}"))
    return posixpath.normpath(posixpath.join(folder, written))


def link(page: str, written: str) -> str:
    """A link, rewritten for the site."""
    target = target_of(page, written)
    made = {source: name for name, source in PAGES.items()}
    if target in made:
        there = made[target]
    elif is_in_site(target):
        there = target.removeprefix("docs/")
    elif (ROOT / target).is_file():
        there = f"repository/{target}.txt"
    else:
        return written  # mkdocs reports it as broken
    return posixpath.relpath(there, posixpath.dirname(page) or ".")


def repository_files(page: str, text: str) -> set[str]:
    """Files outside docs/ to which a page links, other than sources of pages."""
    targets = {target_of(page, found[2]) for found in LINK.finditer(text)}
    return {each for each in targets if not is_in_site(each) and each not in PAGES.values() and (ROOT / each).is_file()}


def is_in_site(target: str) -> bool:
    """Whether mkdocs includes a file of the repository by itself."""
    return target.startswith("docs/") and not target.endswith(".py")


def exported(module: str) -> list[str]:
    """Full names that a package exports, except constants, which have no docstrings; imports nothing."""
    source = ROOT / module.removeprefix("ct_cncl.").replace(".", "/") / "__init__.py"
    names = []
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ct_cncl."):
            names += [f"{module}.{each.name}" for each in node.names]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("_MODULES", "_PLACES"):
            for one, other in ast.literal_eval(node.value).items():  # name: module, or module: names
                place, inside = (other, [one]) if isinstance(other, str) else (one, other)
                full = place if place.startswith("ct_cncl.") else f"{module}.{place}"
                names += [f"{full}.{name}" for name in inside]
    return [name for name in names if not name.rsplit(".", 1)[-1].isupper()]


def api_page(title: str, module: str, names: tuple[str, ...]) -> str:
    """Markdown of a page of docstrings."""
    found = [f"{module}.{name}" for name in names] or exported(module)
    return "\n".join([f"# {title}", "", f"Import from `{module}`.", "", *(f"::: {name}\n" for name in found)])


def commands_page() -> str:
    """Markdown of every command with its help, arguments and options."""
    import typer

    from ct_cncl.pipeline.cli.app import app

    group = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "As `ct-cncl COMMAND --help` prints them. `ct-cncl --debug COMMAND` shows the traceback of an error, `ct-cncl --version` the version.",
        "",
    ]
    for name, command in group.commands.items():
        lines += command_section(f"ct-cncl {name}", command, 2)
    return "\n".join(lines)


def command_section(name: str, command: Any, level: int) -> list[str]:
    """Heading, help, and a table of a command's arguments and options; its own commands below it."""
    text, _, examples = (command.help or "").partition("\nExample")
    lines = ["#" * level + f" {name}", "", escaped(text.strip()), ""]
    commands = [line.strip() for line in examples.split(":", 1)[-1].splitlines() if line.strip()]
    lines += [*(f"    {line}" for line in commands), ""] if commands else []
    parameters = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    if parameters:
        context = command.make_context(name, [], resilient_parsing=True)
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [row(each, context) for each in parameters] + [""]
    for inner, below in getattr(command, "commands", {}).items():
        lines += command_section(f"{name} {inner}", below, level + 1)
    return lines


def row(parameter: Any, context: Any) -> str:
    """Table row of a parameter, worded as in --help."""
    written, meaning = parameter.get_help_record(context) or (parameter.metavar or parameter.name.upper(), "")
    cells = [
        f"`{written.strip()}`",
        escaped(parameter.help or meaning if parameter.param_type_name == "argument" else meaning),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def escaped(text: str) -> str:
    """Escape help text for Markdown, so that nothing in it becomes a tag or emphasis."""
    return re.sub(r"([<*_])", r"\\\1", re.sub(r"``", "`", text)) if "`" not in text else text.replace("<", "&lt;")


def notebook_page(path: Path) -> str:
    """Markdown of a notebook: its text and code, without output."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([*parts, "The notebook itself: [quickstart.ipynb](quickstart.ipynb)."])
