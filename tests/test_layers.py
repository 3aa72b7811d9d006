"""The order of the rooms: a package imports only from packages below it, and every module lies in a package."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import ROOT

LAYERS = [
    {"pipeline.cli"},
    {"pipeline.api"},
    {"pipeline.ablation", "pipeline.interpolation", "pipeline.node", "pipeline.sharing"},
    {"pipeline.qa", "pipeline.simulation", "pipeline.training"},
    {"pipeline.inference", "pipeline.noise_measurement"},
    {"pipeline.report"},
    {"pipeline.evaluation", "pipeline.preparation", "pipeline.weights"},
    {"pipeline.workflow"},
    {"pipeline.handlers"},
    {"pipeline.engines"},
    {"pipeline.losses"},
    {"pipeline.metrics", "pipeline.networks"},
    {"pipeline.common"},
    {"transforms.patches"},
    {"transforms.dataset"},
    {"transforms.phantom", "transforms.physics"},
    {"transforms.series"},
    {"transforms.anatomy"},
    {"transforms.common"},
    {"pipeline", "transforms"},  # the two __init__, which import nothing before they are asked
]
"""From the top; packages of one layer do not import each other."""
FRONT_DOOR = "pipeline/__init__.py"
"""Names what Python users import; lazily, and above every layer."""
DEPTH = {room: depth for depth, layer in enumerate(LAYERS) for room in layer}


def modules(root: Path) -> Iterator[tuple[Path, str]]:
    """Every source file, and the package that it lives in."""
    for top in ("pipeline", "transforms"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).parts
            yield path, ".".join(parts[:2]) if len(parts) > 2 else top


def imported(path: Path, root: Path) -> Iterator[str]:
    """Full names that a file imports from this project, those inside functions too."""
    package = ["ct_cncl", *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ct_cncl")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = [*base, *(node.module.split(".") if node.module else [])]
            if whole[0] == "ct_cncl":
                yield from (".".join([*whole, alias.name]) for alias in node.names)


def upward(root: Path) -> list[str]:
    """Imports that do not go from a higher layer to a lower one."""
    found = []
    for path, room in modules(root):
        if path == root / FRONT_DOOR:
            continue
        for name in imported(path, root):
            parts = name.split(".")[1:]
            other = next((known for known in (".".join(parts[:2]), parts[0]) if known in DEPTH), None)
            assert other is not None, f"{path} imports {name}, whose package has no layer"
            if other != room and DEPTH[other] <= DEPTH[room]:
                found.append(f"{path.relative_to(root)}: {room} imports {name}")
    return found


def test_every_import_goes_down():
    assert upward(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("transforms/series/scan.py", "from ct_cncl.transforms.dataset.datalist import read_datalist"),
        ("transforms/physics/dose.py", "from ct_cncl.pipeline import networks"),
        ("pipeline/losses/pixel.py", "def f():\n    from ct_cncl.pipeline.engines.trainer import CNCLTrainer"),
        ("pipeline/report/tables.py", "import ct_cncl.pipeline.inference.api"),
        ("transforms/anatomy/body.py", "from ..series import scan"),
    ],
)
def test_an_import_that_goes_up_is_seen(tmp_path, file, line):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    (only,) = upward(tmp_path)
    assert only.startswith(f"{file}: ")


def test_the_front_door_imports_nothing_heavy():
    code = "import sys, ct_cncl.pipeline; assert not {'torch', 'monai', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_lies_flat():
    assert [
        path for path, room in modules(ROOT) if room in ("pipeline", "transforms") and path.name != "__init__.py"
    ] == []


def test_every_package_says_in_one_sentence_what_lives_there():
    for path, room in modules(ROOT):
        if path.name == "__init__.py":
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert said, f"{room} says nothing"
            assert said.splitlines()[0].endswith("."), f"{path}: {said!r}"
            assert room in DEPTH, f"{path} has no layer"


def test_the_architecture_page_shows_these_layers():
    page = (ROOT / "docs/explanations/architecture.md").read_text(encoding="utf-8")
    shown = re.search(r"## The folders\n(?s:.*?)\n((?:    .*\n)+)", page)[1]
    for top, lines in zip(("pipeline", "transforms"), re.split(r" *--.*--\n", shown), strict=True):
        layers = [
            {room.partition(".")[2] for room in layer}
            for layer in LAYERS
            if all(room.startswith(f"{top}.") for room in layer)
        ]
        assert [set(line.strip().split("  ")[0].split(", ")) for line in lines.splitlines()] == layers
