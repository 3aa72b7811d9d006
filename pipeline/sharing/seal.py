"""``ct-cncl pack --seal``: pack a bundle again after its texts were edited, with new checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ct_cncl.pipeline.sharing.pack import NAME, PackError, write_checksums, write_zip
from ct_cncl.pipeline.sharing.verify import opened
from ct_cncl.pipeline.sharing.zoo_rules import broken_rules
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.temporary import temporary_folder


def seal(source: Path, out: Path) -> Path:
    """Pack an edited bundle again.

    Args:
        source: the bundle's folder (the zip, unpacked and edited), or a zip.
        out: folder of the new zip and its SHA-256.

    Returns:
        Path of the zip.

    Raises:
        VerifyError: ``source`` is not a bundle.
        PackError: the bundle breaks a rule of the model zoo.
        OutputError: the zip exists already, or cannot be written.
    """
    with opened(source) as bundle, temporary_folder() as scratch:
        folder = scratch / NAME
        shutil.copytree(bundle, folder)
        write_checksums(folder)
        broken = broken_rules(folder)
        if broken:
            raise PackError(f"Expected a bundle that the model zoo accepts, but {broken[0]}")
        version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
        path = out / f"{NAME}_v{version}.zip"
        if path.exists():
            raise OutputError(
                f"Expected no {path.name} in {out}, but there is one. Remove it, or choose another --out."
            )
        with alone_in(path):
            return write_zip(folder, path)
