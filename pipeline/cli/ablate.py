"""``ct-cncl ablate``: several variants trained alike, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def ablate(
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Values for keys of train.json, for all variants, for example batch_size=8.",
            show_default=False,
        ),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="A[+B][+KEY=VALUE]",
            help="A variant: overlays (names or files) and settings joined by +; repeat. `paper` is train.json's own.",
        ),
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", help="Data set of `ct-cncl prepare`. Default: phantoms, made once.")
    ] = None,
    minutes: Annotated[
        Optional[float], typer.Option(help="Budget of each variant: minutes of training, validation not counted.")
    ] = None,
    iterations: Annotated[Optional[int], typer.Option(help="Budget of each variant: training iterations.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs and results.")] = Path("runs/ablation"),
    split: Annotated[str, typer.Option(help="Slices to judge on: validation or test.")] = "validation",
    pictures: Annotated[int, typer.Option(help="Slices on the page.")] = 3,
) -> None:
    """Train variants on the same data, with the same seed, batches and budget, one after another; compare them in a table.

    Learning rates fall from each variant's own to zero by a half cosine over the share of the budget used, whatever its
    overlays say, so that no variant is cut off at a high one. Seed, batch size, patches and doses are train.json's, or
    KEY=VALUE's, for all; a setting of one variant alone is joined to it. The same command goes on after an interruption, and takes up further --with.

    Examples:
      ct-cncl ablate --data data/quarter --with paper --with cncl_fast --minutes 30 --out runs/fast batch_size=8

      ct-cncl ablate --data data/quarter --with unet_bn_gelu+width16 --with unet_ln_gelu+width16 --iterations 4000 --out runs/norm

      ct-cncl ablate --data data/quarter --with cncl_fast --with cncl_fast+texture.weight=1 --minutes 30 --out runs/texture
    """
    from ct_cncl.pipeline.ablation.plan import Ablation
    from ct_cncl.pipeline.ablation.run import run_ablation

    try:
        run_ablation(
            Ablation(
                out=out,
                variants=tuple(variants or ()),
                data=data,
                minutes=minutes,
                iterations=iterations,
                split=split,
                pictures=pictures,
                assignments=tuple(overrides or ()),
            )
        )
    except KeyboardInterrupt:
        say("", f"Stopped; what is done is in {out}. The same command goes on from there.", error=True)
        raise typer.Exit(130) from None
