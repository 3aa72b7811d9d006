"""``ct-cncl demo``: run the whole workflow on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> None:
    """Prepare phantoms, train a small network, evaluate it on unseen phantoms, denoise a scan and draw a picture.

    Takes a few minutes on two cores.

    Example:
      ct-cncl demo --out demo
    """
    from ct_cncl.pipeline.training.demo import run_demo

    run_demo(out, overwrite=overwrite)
