"""``ct-cncl prepare``: write a data set from scans or phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def prepare(
    sources: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="SRC...", help="Normal-dose scans: files or folders of NIfTI or DICOM.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the data set.")] = Path("data"),
    dose: Annotated[
        float, typer.Option("--dose", help="Dose fraction of the low-dose images, simulated or real.")
    ] = 0.25,
    low: Annotated[
        Optional[list[Path]],
        typer.Option("--low", help="Real low-dose partners of SRC, for all splits, instead of simulation."),
    ] = None,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="SRC holds real low- and full-dose scans side by side, distinguished by series description or folder name "
            "(Mayo: full_1mm, quarter_1mm; TCIA: Full dose images, Low Dose Images).",
        ),
    ] = False,
    across_frames: Annotated[
        bool,
        typer.Option(
            "--across-frames", help="Also pair real scans with different DICOM frames of reference, by position."
        ),
    ] = False,
    validation: Annotated[
        Optional[list[Path]], typer.Option("--validation", metavar="SRC", help="Scans for validation.")
    ] = None,
    test: Annotated[Optional[list[Path]], typer.Option("--test", metavar="SRC", help="Scans for testing.")] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of SRC's patients for validation, without --validation.")
    ] = 0.2,
    test_fraction: Annotated[float, typer.Option(help="Share of SRC's patients for testing, without --test.")] = 0.0,
    patients: Annotated[Optional[Path], typer.Option(help="CSV with columns file and patient.")] = None,
    patient_from_name: Annotated[
        str,
        typer.Option(
            help="Regular expression that finds the patient in the name of a file that does not state one: its first group, or the whole match."
        ),
    ] = r"^([^_.]+)",
    phantoms: Annotated[int, typer.Option(help="Number of phantom patients to generate instead of SRC.")] = 0,
    slices: Annotated[int, typer.Option(help="Slices of each phantom.")] = 4,
    incident_photons: Annotated[
        Optional[float],
        typer.Option(
            help="Incident photons per ray at full dose. Default: the noise's level and spectrum are measured in each scan."
        ),
    ] = None,
    realizations: Annotated[
        int,
        typer.Option(
            help="Number of noise realizations to store for each simulated training scan. Training can then draw a dose for every patch "
            "(patches.dose_range, patches.nested_dose_range)."
        ),
    ] = 0,
    photon_counts: Annotated[
        int,
        typer.Option(
            help="How many of the realizations to simulate from photon counts at --dose, with electronic noise and photon-starvation correction."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed for noise, split and phantoms.")] = 0,
    salt: Annotated[
        Optional[str], typer.Option(help="Salt for the patients' hashes. Default: random; not stored.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing data set.")] = False,
) -> None:
    """Write a training data set: low-dose inputs and normal-dose references, split by patient, with checksums.

    Low-dose images are simulated at --dose from normal-dose scans, or come from real scans (--low, --pairs). Partners must share
    patient, frame of reference, kernel and slices; scans without a partner are listed. A patient is never in two splits. DICOM
    headers name the patient; for NIfTI, a table or a rule for file names does (default: up to the first underscore).

    Examples:
      ct-cncl prepare --phantoms 12 --out data/phantoms

      ct-cncl prepare scans/train --validation scans/val --dose 0.25 --out data/quarter

      ct-cncl prepare scans/train --validation scans/val --realizations 4 --out data/any_dose

      ct-cncl prepare pairs/full --low pairs/quarter --patients table.csv --out data/pairs

      ct-cncl prepare Mayo2016 --pairs --validation Mayo2016_held_out --out data/mayo
    """
    from ct_cncl.pipeline.preparation.prepare import PrepareOptions, prepare_data

    prepare_data(
        PrepareOptions(
            sources=tuple(sources or ()),
            out=out,
            dose_fraction=dose,
            low=tuple(low or ()),
            pairs=pairs,
            across_frames=across_frames,
            validation=tuple(validation or ()),
            test=tuple(test or ()),
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            patients=patients,
            patient_from_name=patient_from_name,
            phantoms=phantoms,
            slices=slices,
            incident_photons=incident_photons,
            realizations=realizations,
            photon_counts=photon_counts,
            seed=seed,
            salt=salt,
            overwrite=overwrite,
        )
    )
