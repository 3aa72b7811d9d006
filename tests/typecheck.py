"""Run mypy over the sources under their import names.

mypy cannot follow the package_dir mapping of an editable install, so it is shown the tree that an installation has.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Exit code of mypy over ct_cncl.pipeline and ct_cncl.transforms."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "ct_cncl"
        package.mkdir()
        for name in ("pipeline", "transforms"):
            (package / name).symlink_to(ROOT / name)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(ROOT / ".mypy_cache"), "-p", "ct_cncl.pipeline", "-p", "ct_cncl.transforms"]
        return subprocess.run(command, cwd=folder, env=os.environ | {"MYPYPATH": folder}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
