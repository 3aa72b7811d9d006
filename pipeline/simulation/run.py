"""``ct-cncl simulate`` as a function: simulate scans at a lower dose, in the format of the source."""

from __future__ import annotations

from pathlib import Path

from ct_cncl.pipeline.inference.api import run_over
from ct_cncl.pipeline.inference.places import places_of
from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.simulating import Calibrations, Simulating
from ct_cncl.transforms.common.terminal import say


def simulate_scans(options: SimulateOptions) -> list[Path]:
    """Write low-dose partners of every scan under the source.

    DICOM becomes a derived series; other files keep format, geometry, shape and data type. Results of an earlier run with the same
    options and source are kept, so that an interrupted run can be resumed and several runs can share one folder. Next to each result
    are a record (JSON) of how it was made and, if noise was measured, a picture of both spectra.

    Args:
        options: source, output and settings.

    Returns:
        Paths of the results of this rank, whether made now or earlier.

    Raises:
        ValueError: an option is outside its range.
        ScanError: nothing was found, the only scan failed, or some of several did.
        OutputError: the results cannot be written.
    """
    options.settings(), options.spectrum()  # refuse invalid options before any work
    calibrations = Calibrations()
    tasks = [Simulating(options, number, calibrations) for number in range(1, options.realizations + 1)]
    results = run_over(options.source, places_of(options.out, nifti=options.nifti), tasks, options)
    if options.progress:
        say(f"Low-dose scans: {len(results)} in {options.out}")
    return results
