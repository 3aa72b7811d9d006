"""``ct-cncl qa``: test weights on standard phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def qa(
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and the tables.")],
    weights: Annotated[
        Optional[list[Path]],
        typer.Option("--weights", help="RUN/best.pt or a .ts file. Repeat to compare several. [the bundle's own]"),
    ] = None,
    doses: Annotated[str, typer.Option(help="Dose fractions, separated by commas.")] = "1,0.5,0.25,0.1",
    slices: Annotated[
        int, typer.Option(help="Slices for each phantom and dose; more slices give more precise figures.")
    ] = 16,
    size: Annotated[int, typer.Option(help="Side of a slice in pixels.")] = 320,
    pixel_mm: Annotated[float, typer.Option(help="Side of a pixel in mm.")] = 0.75,
    noise_hu: Annotated[
        float, typer.Option(help="Noise of the phantom at full dose in HU; sets the incident photons.")
    ] = 10.0,
    cutoff: Annotated[
        float, typer.Option(help="Cut-off of the Hann filter (the kernel), as a fraction of the Nyquist frequency.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import and run the classes that a run's config names, and say which.")
    ] = False,
) -> None:
    """Test a denoiser on phantoms: noise and its texture, sharpness by contrast, HU, and detectability by dose, on one page.

    Scans of water, discs and low-contrast lesions are simulated (filtered back projection, quantum noise) and denoised. The report
    shows what a hospital should see before it tries a denoiser. It is not a clearance for use on patients.

    Example:
      ct-cncl qa --weights runs/narrow/best.pt --out qa
    """
    from ct_cncl.pipeline.qa.phantoms import ScanSettings
    from ct_cncl.pipeline.qa.run import PAGE, QAOptions, run_qa
    from ct_cncl.pipeline.weights.load import imports_of
    from ct_cncl.transforms.common.terminal import say

    try:
        fractions = tuple(float(text) for text in doses.split(",") if text.strip())
    except ValueError as error:
        raise ValueError(
            f"Expected dose fractions separated by commas, as in 1,0.25, but got {doses!r}. Correct --doses."
        ) from error
    scan = ScanSettings(
        size=size,
        pixel_mm=pixel_mm,
        radius_mm=min(100.0, 0.42 * size * pixel_mm),
        noise_hu=noise_hu,
        cutoff=cutoff,
        seed=seed,
    )
    if trust:
        say(*(line for path in weights or () for line in imports_of(path)))
    evaluation = run_qa(
        QAOptions(
            weights=tuple(weights) if weights else (None,), out=out, doses=fractions, slices=slices, scan=scan,
            device=device, overwrite=overwrite, trust=trust,
        )
    )  # fmt: skip
    say(*evaluation.summary, *evaluation.warnings, f"written to {out}: {PAGE} and the tables as CSV")
