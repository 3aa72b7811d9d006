"""``ct-cncl simulate``: normal-dose scans in, low-dose partners out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.pipeline.cli.archive_options import Compress, Deidentify, Derived, Overwrite, Series, Strict


def simulate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="DICOM (folder, file, zip, DICOMDIR), NIfTI, MHA, NRRD, or a folder of scans: an archive, at normal dose.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder for results, their records and manifest.jsonl; of one volume, the file itself (low.nii.gz).",
        ),
    ],
    dose: Annotated[float, typer.Option("--dose", help="Dose fraction: 0.25 is quarter dose.")] = 0.25,
    realizations: Annotated[int, typer.Option(help="Results for each scan, each with noise of its own.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    calibration: Annotated[
        str,
        typer.Option(
            help="Where the scan's full dose comes from: image (its own noise, level and spectrum), tags (DICOM, a factor of "
            "2 uncertain), default (2e5 photons), or auto: the first of them that works."
        ),
    ] = "auto",
    incident_photons: Annotated[
        Optional[float], typer.Option(help="Incident photons a ray at full dose, instead of a calibration.")
    ] = None,
    electronic_variance: Annotated[
        Optional[float],
        typer.Option(help="Of the electronic noise, photons^2. Default: usual for the slice's thickness; 0 for none."),
    ] = None,
    nps: Annotated[
        Optional[Path],
        typer.Option(
            help="CSV with a measured spectrum of the scan's noise: columns frequency_per_mm and power_hu2_mm2. The kernel is then the "
            "file's, the level still the scan's own.",
            metavar="FILE",
        ),
    ] = None,
    geometry: Annotated[str, typer.Option(help="parallel, or mayo: the fan beam of a Siemens scanner.")] = "parallel",
    route: Annotated[
        str, typer.Option(help="formula, or photon_counts: counts are simulated, with photon-starvation correction.")
    ] = "formula",
    bowtie_mm: Annotated[
        Optional[float], typer.Option(help="Diameter of the water cylinder that a bowtie filter makes up for. [none]")
    ] = None,
    current_modulation: Annotated[
        float, typer.Option(help="Tube current follows attenuation: 0 constant, 0.5 least noise for the dose.")
    ] = 0.0,
    nifti: Annotated[bool, typer.Option("--nifti", help="Results as NIfTI whatever the source is.")] = False,
    series: Series = None,
    strict: Strict = False,
    derived: Derived = False,
    compress: Compress = "none",
    deidentify: Deidentify = False,
    overwrite: Overwrite = False,
) -> None:
    """Make low-dose partners for normal-dose scans: noise of the missing dose, inserted in the sinogram.

    DICOM becomes a derived series; other files keep geometry, shape and data type. A result is called SCAN_dose0.25_r1. Beside
    it, RESULT.json says how it was made, and RESULT.svg shows the spectra of the scan's own noise and of the inserted noise.
    Several scans are an archive, as in denoise: the same command again goes on where it stopped. Missing or uneven slices are
    reported, and every slice is simulated on its own.

    Examples:
      ct-cncl simulate scan.nii.gz --dose 0.25 --out low

      ct-cncl simulate archive --dose 0.25 --nifti --out low

      ct-cncl simulate dicom_folder --dose 0.1 --realizations 4 --out low --geometry mayo --electronic-variance 100
    """
    from ct_cncl.pipeline.simulation.options import SimulateOptions
    from ct_cncl.pipeline.simulation.run import simulate_scans

    simulate_scans(
        SimulateOptions(
            source=source,
            out=out,
            dose_fraction=dose,
            realizations=realizations,
            seed=seed,
            calibration=calibration,
            incident_photons=incident_photons,
            electronic_variance=electronic_variance,
            nps=nps,
            geometry=geometry,
            route=route,
            bowtie_mm=bowtie_mm,
            current_modulation=current_modulation,
            nifti=nifti,
            series=tuple(series or ()),
            strict=strict,
            derived=derived,
            compression=compress,
            deidentify=deidentify,
            overwrite=overwrite,
        )
    )
