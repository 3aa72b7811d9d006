"""Options that ``denoise`` and ``simulate`` share: which scans to read, and how to write the results."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

ChosenSeries = Annotated[
    Optional[list[str]],
    typer.Option(help="Only this series, by number, name or tag. Repeatable.", metavar="SERIES"),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse series with missing, duplicate or unevenly spaced slices.")
]
Derived = Annotated[
    bool,
    typer.Option("--derived", help="Also accept results of ct-cncl and other derived images (MIP, average, map, ...)."),
]
Compress = Annotated[str, typer.Option(help="Lossless compression of DICOM results: none, jpeg2000 or rle.")]
Deidentify = Annotated[
    bool,
    typer.Option(
        "--deidentify", help="Remove the patient's identity (DICOM PS3.15 basic profile; pixels are not changed)."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results made with other options or by another version.")
]
