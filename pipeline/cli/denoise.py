"""``ct-cncl denoise``: denoise scans and write the results in the format of the source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.pipeline.cli.archive_options import ChosenSeries, Compress, Deidentify, Derived, Overwrite, Strict


def denoise(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="DICOM (folder, file, zip, DICOMDIR), NIfTI, MHA, NRRD, TIFF, NPY, or a folder of scans: an archive.",
        ),
    ],
    destination: Annotated[Optional[Path], typer.Argument(metavar="[DST]", help="The same as --out.")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder for results, their records and manifest.jsonl. For a single volume, this can be a file name (out.nii.gz)."
        ),
    ] = None,
    weights: Annotated[
        Optional[Path],
        typer.Option(
            help="A run's best.pt or last.pt, or an exported .ts or .onnx. Default: the bundle's own weights."
        ),
    ] = None,
    strength: Annotated[
        Optional[str],
        typer.Option(
            help="Share of the network's correction to apply: low, medium, high, or a number from 0 (scan unchanged) to 1. [1]",
            metavar="STRENGTH",
            show_default=False,
        ),
    ] = None,
    target_dose: Annotated[
        Optional[str],
        typer.Option(
            help="Instead of --strength: the dose that the result should look as if taken at, as a multiple of the scan's own dose: "
            "1 or more, or clean. Without it, the bundle's weights give 4.",
            metavar="DOSE",
        ),
    ] = None,
    save: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Also write, as series in HU: removed (source - result), noise, content, disagreement. Separate with commas.",
            metavar="KINDS",
        ),
    ] = None,
    series: ChosenSeries = None,
    strict: Strict = False,
    derived: Derived = False,
    compress: Compress = "none",
    deidentify: Deidentify = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[Optional[int], typer.Option(help="Slices per batch. Default: chosen for the device.")] = None,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads for the network. Default: torch's.")] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; bf16: faster on GPUs and on CPUs with AMX, differs by 0.1 HU on average (0.3 with a .ts file); auto: bf16 if the "
            "device supports it in hardware."
        ),
    ] = "fp32",
    window_preview: Annotated[
        Optional[Path],
        typer.Option(
            help="Write a PNG of the middle slice before and after denoising, and of what was removed.", metavar="PNG"
        ),
    ] = None,
    manifest: Annotated[
        Optional[Path],
        typer.Option(
            help="Separate folder for records and manifest.jsonl, so that --out holds results only.", metavar="DIR"
        ),
    ] = None,
    overwrite: Overwrite = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run a .ts file without checking its code, and import the classes that a run's config names. Use it only for files "
            "from someone you trust; see SECURITY.md.",
        ),
    ] = False,
) -> None:
    """Denoise scans. DICOM becomes a derived series; other files keep geometry, shape and data type. The input is never changed.

    A folder of scans is an archive. A scan that fails is recorded and does not stop the others; the same command resumes where
    it stopped. Under torchrun the processes share the work. Only the network's plain definition is read from the weights'
    config; no code in it is run. If the weights describe their training data, scans unlike it cause a warning.

    Examples:
      ct-cncl denoise dicom_folder --weights runs/narrow/best.pt --out denoised

      ct-cncl denoise scan.nii.gz --weights runs/narrow/best.pt --out denoised --strength 0.7 --save noise,disagreement

      ct-cncl denoise scan.nii.gz denoised.nii.gz --target-dose 2

      torchrun --no-python --nproc_per_node=2 ct-cncl denoise archive --weights model.ts --out denoised
    """
    from ct_cncl.pipeline.inference.api import denoise_scans
    from ct_cncl.pipeline.weights.load import imports_of
    from ct_cncl.transforms.common.terminal import say

    place = out or destination
    if place is None or (out and destination):
        raise typer.BadParameter(
            f"expected one place for the results, as DST or as --out, but got {'both' if place else 'none'}"
        )
    if trust and weights is not None:
        say(*imports_of(weights))
    denoise_scans(
        source,
        place,
        weights=weights,
        strength=strength,
        target_dose=target_dose,
        save=save,
        series=tuple(series or ()),
        strict=strict,
        derived=derived,
        compression=compress,
        deidentify=deidentify,
        device=device,
        batch_size=batch_size,
        threads=threads,
        precision=precision,
        preview=window_preview,
        manifest=manifest,
        overwrite=overwrite,
        trust=trust,
    )
