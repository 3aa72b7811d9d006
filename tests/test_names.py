"""One meaning a name: no public class, function or constant is defined in two modules."""

import ast
from collections import defaultdict

from tiny_runs import ROOT

ENTRY_POINTS = {"main"}
"""What programs are started by, wherever they are."""
ROOMS_OF_USERS = ("pipeline/cli/", "pipeline/api/")
"""A command, and a function for Python users, is called as what it does below them."""


def public_names(path):
    """Names that a module defines at its top level, those with an underscore and loggers aside."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_") and name not in {"logger", *ENTRY_POINTS}}


def defined_twice(root):
    found = defaultdict(list)
    for top in ("pipeline", "transforms"):
        for path in sorted((root / top).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            for name in public_names(path) if not place.startswith(ROOMS_OF_USERS) else ():
                found[name].append(place)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_no_name_has_two_meanings():
    assert defined_twice(ROOT) == {}


def test_a_name_of_two_meanings_is_seen(tmp_path):
    for place, text in (("pipeline/a.py", "class Job: ..."), ("transforms/b.py", "Job: type = int")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(f"{text}\n_own = logger = 1\n")
    assert defined_twice(tmp_path) == {"Job": ["pipeline/a.py", "transforms/b.py"]}
