"""``ct-cncl simulate`` as a function: scans in, the same kind of scans at a lower dose out."""

from __future__ import annotations

from pathlib import Path

from ct_cncl.pipeline.inference.api import run_over
from ct_cncl.pipeline.inference.places import places_of
from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.pipeline.simulation.simulating import Calibrations, Simulating
from ct_cncl.transforms.common.terminal import say


def simulate_scans(options: SimulateOptions) -> list[Path]:
    """Write low-dose partners of every scan under the source.

    DICOM gives a derived series, other files keep format, geometry, shape and data type. Results of an earlier run with the same
    options and source are kept; so an interrupted run can be resumed, and several may share one folder. Each result has a record
    (JSON) next to it, which says how it was made, and where noise was measured a picture of both spectra.

    Args:
        options: what to do, and where.

    Returns:
        The results that belong to this rank, made now or before.

    Raises:
        ValueError: options outside their range.
        ScanError: nothing found, the only scan failed, or some of several did.
        OutputError: the results cannot be written.
    """
    options.settings(), options.spectrum()  # refused before any work
    calibrations = Calibrations()
    tasks = [Simulating(options, number, calibrations) for number in range(1, options.realizations + 1)]
    results = run_over(options.source, places_of(options.out, nifti=options.nifti), tasks, options)
    if options.progress:
        say(f"Low-dose scans: {len(results)} in {options.out}")
    return results
