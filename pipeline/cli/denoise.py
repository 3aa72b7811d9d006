"""``ct-cncl denoise``: scans in, denoised scans of the same kind out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.pipeline.cli.archive_options import Compress, Deidentify, Derived, Overwrite, Series, Strict


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
            help="Folder for results, their records and manifest.jsonl; of one volume, the file itself (out.nii.gz)."
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
            help="How much of the noise that the network finds is removed: low, medium, high, or 0 (the scan bit for bit) to 1.  [1]",
            metavar="STRENGTH",
            show_default=False,
        ),
    ] = None,
    target_dose: Annotated[
        Optional[str],
        typer.Option(
            help="Instead of --strength: the result looks as if taken at this multiple of the scan's dose, 1 or more, or clean. The "
            "bundle's weights alone give 4.",
            metavar="DOSE",
        ),
    ] = None,
    save: Annotated[
        Optional[list[str]],
        typer.Option(
            help="removed (source - result), noise, content, disagreement: further series in HU; several with commas.",
            metavar="KINDS",
        ),
    ] = None,
    series: Series = None,
    strict: Strict = False,
    derived: Derived = False,
    compress: Compress = "none",
    deidentify: Deidentify = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[Optional[int], typer.Option(help="Slices at once. Default: what suits the device.")] = None,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads of the network. Default: torch's.")] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; bf16, faster on GPUs and CPUs with AMX, 0.1 HU off in the mean (0.3 with a .ts file); auto: bf16 where the device "
            "is made for it."
        ),
    ] = "fp32",
    window_preview: Annotated[
        Optional[Path],
        typer.Option(help="Write the middle slice before and after, and what was removed, as PNG.", metavar="PNG"),
    ] = None,
    manifest: Annotated[
        Optional[Path],
        typer.Option(help="Folder for records and manifest.jsonl, so that DICOM results lie alone.", metavar="DIR"),
    ] = None,
    overwrite: Overwrite = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run a .ts file whatever its code does: only if you know who made it. See SECURITY.md."
        ),
    ] = False,
) -> None:
    """Denoise scans. DICOM becomes a derived series; other files keep geometry, shape and data type. The input is never touched.

    Several scans are an archive: one that fails is recorded and the others are done; the same command again goes on where
    it stopped. Under torchrun the processes share the work. Of the weights' config only the network's plain definition is
    read; nothing in it is run. Scans unlike the training data are warned about, where the weights say what it was.

    Examples:
      ct-cncl denoise dicom_folder --weights runs/narrow/best.pt --out denoised

      ct-cncl denoise scan.nii.gz --weights runs/narrow/best.pt --out denoised --strength 0.7 --save noise,disagreement

      ct-cncl denoise scan.nii.gz denoised.nii.gz --target-dose 2

      torchrun --no-python --nproc_per_node=2 ct-cncl denoise archive --weights model.ts --out denoised
    """
    from ct_cncl.pipeline.inference.api import denoise_scans

    place = out or destination
    if place is None or (out and destination):
        raise typer.BadParameter(
            f"expected one place for the results, as DST or as --out, but got {'both' if place else 'none'}"
        )
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
