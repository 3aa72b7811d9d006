"""``ct-cncl simulate``: simulate low-dose partners of normal-dose scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.pipeline.cli.archive_options import ChosenSeries, Compress, Deidentify, Derived, Overwrite, Strict


def simulate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Normal-dose scans: DICOM (folder, file, zip, DICOMDIR), NIfTI, MHA, NRRD, or a folder of scans (an archive).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder for results, their records and manifest.jsonl. For a single volume, this can be a file name (low.nii.gz).",
        ),
    ],
    dose: Annotated[float, typer.Option("--dose", help="Dose fraction: 0.25 is quarter dose.")] = 0.25,
    realizations: Annotated[int, typer.Option(help="Number of results for each scan, with independent noise.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    calibration: Annotated[
        str,
        typer.Option(
            help="How to find the incident photons of the scan: image (from the level and spectrum of its noise), tags (from DICOM, uncertain "
            "by a factor of 2), default (2e5 photons), or auto (the first of these that works)."
        ),
    ] = "auto",
    incident_photons: Annotated[
        Optional[float], typer.Option(help="Incident photons per ray at full dose, instead of a calibration.")
    ] = None,
    electronic_variance: Annotated[
        Optional[float],
        typer.Option(
            help="Variance of the electronic noise in photons^2; 0 for none. Default: typical for the slice thickness."
        ),
    ] = None,
    nps: Annotated[
        Optional[Path],
        typer.Option(
            help="CSV with a measured noise power spectrum: columns frequency_per_mm and power_hu2_mm2. It replaces the spectrum "
            "measured in the scan; the noise level still comes from the scan.",
            metavar="FILE",
        ),
    ] = None,
    geometry: Annotated[str, typer.Option(help="parallel, or mayo: the fan beam of a Siemens scanner.")] = "parallel",
    route: Annotated[
        str,
        typer.Option(help="formula, or photon_counts (simulates photon counts, with photon-starvation correction)."),
    ] = "formula",
    bowtie_mm: Annotated[
        Optional[float],
        typer.Option(
            help="Diameter in mm of the water cylinder that the bowtie filter compensates. [no bowtie filter]"
        ),
    ] = None,
    current_modulation: Annotated[
        float,
        typer.Option(
            help="Modulation of the tube current by attenuation: 0 is constant, 0.5 gives the least noise for the dose."
        ),
    ] = 0.0,
    nifti: Annotated[bool, typer.Option("--nifti", help="Write NIfTI, whatever the format of the source.")] = False,
    series: ChosenSeries = None,
    strict: Strict = False,
    derived: Derived = False,
    compress: Compress = "none",
    deidentify: Deidentify = False,
    overwrite: Overwrite = False,
) -> None:
    """Simulate low-dose partners of normal-dose scans by inserting noise in the sinogram.

    DICOM becomes a derived series; other files keep geometry, shape and data type. A result is called SCAN_dose0.25_r1. Next to
    it, RESULT.json records how it was made and RESULT.svg shows the spectra of the scan's own noise and of the inserted noise. A
    folder of scans is an archive, as for denoise: the same command resumes where it stopped. Missing or unevenly spaced slices are
    reported; each slice is simulated independently.

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
