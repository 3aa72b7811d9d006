"""``ct-cncl evaluate``: a checkpoint's figures on a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or a checkpoint in it.")],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Values for config keys, for example device=cpu.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", help="Data set of `ct-cncl prepare`. Default: the run's.")
    ] = None,
    split: Annotated[str, typer.Option(help="training, validation or test.")] = "validation",
    out: Annotated[
        Optional[Path], typer.Option("--out", help="Folder of the results. Default: RUN/evaluation_SPLIT.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
) -> None:
    """Print PSNR, SSIM and RMSE (range stated) of input, both branches and result; write a row a slice, and pictures.

    Runs RUN/config.json, and a config is code: evaluate only runs that you trust.

    Example:
      ct-cncl evaluate runs/narrow --data data/quarter --split test
    """
    from ct_cncl.pipeline.training import evaluate_run

    evaluate_run(run, data=data, split=split, out=out, overwrite=overwrite, assignments=overrides or ())
