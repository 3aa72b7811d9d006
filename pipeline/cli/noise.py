"""``ct-cncl noise``: measure the noise of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def noise(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder of NIfTI or DICOM.")],
    out: Annotated[
        Optional[Path], typer.Option("--out", help="Folder for noise.json, noise.csv and noise.html.")
    ] = None,
    maps: Annotated[
        bool,
        typer.Option(
            "--map", help="Write a noise map of each scan in HU: a derived series for DICOM, NIfTI otherwise."
        ),
    ] = False,
    repeat: Annotated[
        Optional[Path],
        typer.Option(
            help="A second scan of the same object. It is subtracted, which gives exact figures.", metavar="SCAN"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
) -> None:
    """Measure the noise of scans without a reference: its spectrum and its level, also by slice and tissue, with standard errors.

    Examples:
      ct-cncl noise scan.nii.gz

      ct-cncl noise dicom_folder --out noise --map
    """
    from ct_cncl.pipeline.noise_measurement.run import measure_scans

    measure_scans(source, out=out, maps=maps, repeat=repeat, overwrite=overwrite)
