"""``ct-cncl denoise``: scans in, denoised NIfTI out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def denoise(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder of NIfTI or DICOM.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    weights: Annotated[
        Optional[Path],
        typer.Option(help="A run's best.pt or last.pt. Default: the bundle's own weights."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Slices at once.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of an earlier run.")] = False,
) -> None:
    """Denoise scans. Results are NIfTI with the geometry, shape and data type of their source; the input is never touched.

    Of the weights' config only the network's plain definition is read; nothing in it is run.

    Examples:
      ct-cncl denoise scan.nii.gz --weights runs/narrow/best.pt --out denoised

      ct-cncl denoise dicom_folder --weights runs/narrow/best.pt --out denoised --device cpu
    """
    from ct_cncl.pipeline.inference import denoise_scans

    denoise_scans(source, out, weights=weights, batch_size=batch_size, device=device, overwrite=overwrite)
