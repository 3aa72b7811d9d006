"""``ct-cncl train``: a thin front end to the bundle's training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def train(
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings of train.json, for example max_epochs=50 or texture.weight=1.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Optional[Path],
        typer.Option("--data", help="Data set written by `ct-cncl prepare`. Default: phantoms, generated once."),
    ] = None,
    overlays: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="OVERLAY", help="Recipe or overlay: a name or a file; repeat to combine."),
    ] = None,
    stages: Annotated[
        Optional[list[str]],
        typer.Option(
            "--stage",
            metavar="'OVERLAY... [KEY=VALUE]...'",
            help="Train in stages, each starting from the best weights of the one before; repeat in order.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path("runs/training"),
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out, with its own config.")] = False,
    report: Annotated[
        bool, typer.Option(help="Write report.html at the end: curves and some validation slices.")
    ] = True,
    listed: Annotated[bool, typer.Option("--list", help="List all recipes and overlays and exit.")] = False,
) -> None:
    """Train CNCL. A run that was killed continues with --resume and ends with the same weights as an uninterrupted run.

    Examples:
      ct-cncl train --list

      ct-cncl train --data data/quarter --with fast --out runs/fast

      ct-cncl train --data data/quarter --with narrow --out runs/narrow max_epochs=40 learning_rate=1e-3 patches.size=96

      ct-cncl train --data data/quarter --with narrow --stage pixel_only --stage 'gan_lsgan learning_rate=1e-4' --out runs/staged

      ct-cncl train --resume --out runs/narrow
    """
    if listed:
        from ct_cncl.pipeline.workflow.overlays import overlay_list

        say(*overlay_list().split("\n"))
        return
    from ct_cncl.pipeline.training.staged import stages_hint, train_run
    from ct_cncl.pipeline.workflow.run import start_logging

    start_logging()
    try:
        train_run(
            out=out,
            data=data,
            overlays=overlays or (),
            stages=stages or (),
            resume=resume,
            assignments=overrides or (),
            report=report,
        )
    except KeyboardInterrupt:
        say("", stages_hint(out), error=True)
        raise typer.Exit(130) from None
