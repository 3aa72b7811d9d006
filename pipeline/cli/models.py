"""``ct-cncl models``: compare what the network variants cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def models(
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="A[+B][+KEY=VALUE]",
            help="Only this variant and the paper's: overlays and settings joined by +. Repeatable.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the slice in pixels.")] = 512,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Measure seconds and memory.")] = True,
    repeats: Annotated[int, typer.Option(help="Timed passes after a warm-up; the median is shown.")] = 3,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads. Default: torch's.")] = None,
    csv: Annotated[
        Optional[Path], typer.Option("--csv", metavar="FILE", help="Also write the table to this file.")
    ] = None,
) -> None:
    """Print parameters, GMAC, CPU seconds per slice and peak memory of every variant that changes the network.

    GMAC (10^9 multiply-accumulate operations) counts convolutions and matrix products. Seconds are the median of a few passes over
    one slice; memory is the peak of a fresh process minus what it held after its imports. `paper` is train.json unchanged.

    Examples:
      ct-cncl models --no-timing

      ct-cncl models --with cncl_fast --with unet_ln_gelu+width16 --threads 2 --csv models.csv
    """
    from ct_cncl.pipeline.ablation.model_table import format_models, model_table, write_models

    rows = model_table(variants or (), size=size, timing=timing, repeats=repeats, threads=threads)
    say(*format_models(rows, size=size).split("\n"))
    if csv is not None:
        say(f"written to {write_models(csv, rows, size=size)}")
