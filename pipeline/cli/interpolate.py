"""``ct-cncl interpolate``: mix the weights of two checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def interpolate(
    first: Annotated[Path, typer.Argument(metavar="F", help="A run, or one of its checkpoints.")],
    second: Annotated[Path, typer.Argument(metavar="G", help="Another run or checkpoint of the same network.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the mixed weights.")],
    alpha: Annotated[float, typer.Option("--alpha", help="Share of F, 0 to 1: alpha * F + (1 - alpha) * G.")] = 0.8,
    scan: Annotated[
        int, typer.Option("--scan", help="Also evaluate this many alphas from 0 to 1; writes curve.csv and curve.svg.")
    ] = 0,
    data: Annotated[Optional[Path], typer.Option("--data", help="Data set for --scan. Default: that of F.")] = None,
    split: Annotated[str, typer.Option(help="training, validation or test.")] = "validation",
    max_slices: Annotated[int, typer.Option(help="Maximum number of slices, evenly spaced; 0 uses all.")] = 40,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier interpolation.")] = False,
) -> None:
    """Mix the weights of two networks, for example one trained with pixel losses and one fine-tuned from it with an adversary.

    --scan shows the trade-off between PSNR (range 4096 HU) and the distance of the noise power spectrum from the reference's.
    `evaluate` accepts the resulting folder, and `denoise` accepts it as --weights OUT/best.pt.

    Examples:
      ct-cncl interpolate runs/staged/1_pixel_only runs/staged/2_gan_lsgan --alpha 0.8 --out runs/mixed

      ct-cncl interpolate runs/pixel runs/gan --alpha 0.5 --scan 6 --data data/quarter --out runs/mixed
    """
    from ct_cncl.pipeline.interpolation.run import interpolate_and_scan

    for point in interpolate_and_scan(
        first,
        second,
        alpha=alpha,
        steps=scan,
        out=out,
        data=data,
        split=split,
        max_slices=max_slices or None,
        device=device,
        overwrite=overwrite,
    ):
        name = "input     " if point.alpha is None else f"alpha {point.alpha:.2f}"
        say(f"{name}  PSNR {point.psnr:.2f} dB (range 4096 HU)  NPS distance {point.nps_distance:.3f}")
