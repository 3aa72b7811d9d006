"""``ct-cncl ablate``: train several variants under the same conditions and compare them in one table."""

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
            help="Settings of train.json for all variants, for example batch_size=8.",
            show_default=False,
        ),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="A[+B][+KEY=VALUE]",
            help="A variant: overlays (names or files) and settings joined by +. Repeatable. `paper` is train.json unchanged.",
        ),
    ] = None,
    data: Annotated[
        Optional[Path],
        typer.Option("--data", help="Data set written by `ct-cncl prepare`. Default: phantoms, generated once."),
    ] = None,
    minutes: Annotated[
        Optional[float], typer.Option(help="Budget for each variant: minutes of training, excluding validation.")
    ] = None,
    iterations: Annotated[Optional[int], typer.Option(help="Budget for each variant: training iterations.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs and their results.")] = Path("runs/ablation"),
    split: Annotated[str, typer.Option(help="Split to evaluate on: validation or test.")] = "validation",
    pictures: Annotated[int, typer.Option(help="Number of slices shown in the report.")] = 3,
) -> None:
    """Train variants one after another on the same data, with the same seed, batches and budget, and compare them in a table.

    Each variant's learning rate falls to zero along a half cosine over the budget, overriding its overlays, so that no run ends
    while the rate is still high. Seed, batch size, patches and doses come from train.json or from KEY=VALUE and are the same for
    all; append a setting to a variant with + to change it for that variant only. The same command resumes after an interruption.
    The table holds the variants given with --with. Runs of others stay in --out and reappear when you name them again.

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
        say("", f"Stopped. Finished work is in {out}; run the same command to resume.", error=True)
        raise typer.Exit(130) from None
