"""``ct-cncl pack``: the shareable bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def pack(
    out: Annotated[Path, typer.Option("--out", help="Folder for the zip and its SHA-256.")] = Path("dist"),
    weights: Annotated[
        Optional[Path], typer.Option(help="A run's best.pt. Default: the bundle's own weights.", metavar="CHECKPOINT")
    ] = None,
    overlays: Annotated[
        Optional[list[str]],
        typer.Option(
            "--with", metavar="OVERLAY", help="Overlay the weights were trained with: adds its training settings."
        ),
    ] = None,
    version: Annotated[Optional[str], typer.Option(help="Version of this bundle. Default: the project's.")] = None,
    changes: Annotated[Optional[str], typer.Option(help="What is new, for the bundle's changelog.")] = None,
) -> None:
    """Write ct_cncl_v<version>.zip: configs, docs, weights as .pt, .ts and .onnx, the code they need, an example with its result.

    It runs wherever MONAI and the packages in its metadata are installed, without this project. The same input gives the same
    bits. `ct-cncl verify` checks it, `ct-cncl publish` publishes it.

    Examples:
      ct-cncl pack --out dist

      ct-cncl pack --weights runs/ours/best.pt --with cncl_fast --version 0.1.0+ours --changes "our scanner" --out dist
    """
    from ct_cncl.pipeline.sharing.pack import checksum_file
    from ct_cncl.pipeline.sharing.pack import pack as pack_bundle

    path = pack_bundle(out, weights=weights, overlays=overlays, version=version, changes=changes)
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MiB", checksum_file(path).read_text(encoding="utf-8").split()[0])
