"""A virtual environment that holds only the stated requirements of a bundle, and not this project."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path


def stated_requirements(bundle: Path) -> list[str]:
    """Names of the packages that a bundle's metadata asks for."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    return ["monai", "torch", "numpy", *metadata["required_packages_version"]]


def make_venv(folder: Path, requirements: list[str]) -> Path:
    """Link the installed packages and their own requirements into it; return its python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    names, todo = set(), list(requirements)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # required only on another system
            continue
        if name in names:
            continue
        names.add(name)
        todo += [re.match(r"[\w.-]+", text).group() for text in distribution.requires or () if "extra ==" not in text]
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            source = Path(distribution.locate_file(top))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess:
    """Run the environment's python where it cannot find the project's checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done
