"""``ct-cncl simulate``: normal-dose scans in, low-dose partners out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def simulate(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder of NIfTI or DICOM, at normal dose.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    dose: Annotated[float, typer.Option("--dose", help="Dose fraction: 0.25 is quarter dose.")] = 0.25,
    realizations: Annotated[int, typer.Option(help="So many results a scan, each with noise of its own.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of other options.")] = False,
) -> None:
    """Make low-dose partners for normal-dose scans: noise of the missing dose, inserted in the sinogram.

    Results are NIfTI with the geometry, shape and data type of their source, named SCAN_dose0.25_r1.nii.gz; SCAN_dose0.25_r1.json
    beside it says how it was made, SCAN_dose0.25_r1.svg shows the spectra of the scan's own noise and of what was inserted. A run that was interrupted goes on where it was.

    Examples:
      ct-cncl simulate scan.nii.gz --dose 0.25 --out low

      ct-cncl simulate dicom_folder --dose 0.1 --realizations 4 --out low --geometry mayo --electronic-variance 100
    """
    from ct_cncl.pipeline.preparation.simulate import SimulateOptions, simulate_scans

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
            overwrite=overwrite,
        )
    )
