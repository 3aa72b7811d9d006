"""Options that ``denoise`` and ``simulate`` share: which scans, and how their results are written."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Series = Annotated[
    Optional[list[str]],
    typer.Option(help="Only this series, by number, name or tag; several times for several.", metavar="SERIES"),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse series with missing, doubled or unevenly spaced slices.")
]
Derived = Annotated[
    bool,
    typer.Option("--derived", help="Take results of ct-cncl and what others derived (MIP, average, map, ...), too."),
]
Compress = Annotated[str, typer.Option(help="Of DICOM results, without loss: none, jpeg2000 or rle.")]
Deidentify = Annotated[
    bool, typer.Option("--deidentify", help="Take out who the patient is (DICOM PS3.15 basic profile; not pixels).")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that were made with other options, or by another version.")
]
