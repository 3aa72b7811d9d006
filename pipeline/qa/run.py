"""``ct-cncl qa``: the standard phantom test of one or more denoisers, with the results on one page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ct_cncl.pipeline.evaluation.provenance import provenance
from ct_cncl.pipeline.evaluation.record import INPUT, PAGE, REFERENCE, Evaluation, Method, SliceView
from ct_cncl.pipeline.evaluation.tables import write_tables
from ct_cncl.pipeline.qa.answer import phantom_answer
from ct_cncl.pipeline.qa.insert_pages import InsertFindings
from ct_cncl.pipeline.qa.inserts import insert_scans, measure_inserts, places_in
from ct_cncl.pipeline.qa.measure import DoseResult, measure_dose, transfers
from ct_cncl.pipeline.qa.pages import QAResults, charts, sentences, shown_dose, tables
from ct_cncl.pipeline.qa.phantoms import Scanner, ScanSettings, discs, lesions, water
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.hu import WINDOWS
from ct_cncl.transforms.common.locks import alone_in

Denoiser = Callable[[np.ndarray], np.ndarray]
"""A function from slices (x, y, slices), float32, HU, to denoised slices of the same shape."""
_RECORD = "evaluation.json"
_PHANTOMS = {"water": water, "discs": discs, "lesions": lesions}
CAUTION = (
    "Phantoms are simpler than patients: uniform water, round discs. A network trained on anatomy may do better or worse there than "
    "here. This test shows noise, sharpness, HU and detectability under known conditions; it is no clearance for use on patients."
)
_CONSTANTS = {
    "noise, noise power": "middle of a water cylinder, patches of 32 x 32 pixels, differences of slices over sqrt(2), Hann window",
    "task transfer": "edge of discs in the mean over slices, centre and radius fitted, bins of 0.1 pixel",
    "linearity": "mean over 0.6 of a disc's radius against the disc's HU by construction",
    "detectability": "channelised Hotelling observer, dense difference-of-Gaussian channels, 18 mm regions, d' corrected for the "
    "number of samples, standard error by the jackknife",
    "inserts": "noise-free, 30 mm apart in water, response over the disc; false structure above 99.9 % of the filtered input noise; shapes by "
    "the same channels, trained and tested on disjoint realizations, DeLong's interval",
}


@dataclass(frozen=True)
class QAOptions:
    """Options of ``ct-cncl qa``; see its ``--help``.

    Raises:
        ValueError: there are no weights, doses outside (0, 1], or too few slices.
    """

    weights: tuple[Path | None, ...]
    out: Path
    doses: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)
    slices: int = 16
    scan: ScanSettings = field(default_factory=ScanSettings)
    device: str = "auto"
    overwrite: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        check_plan(self.doses, self.slices)
        if not self.weights:
            raise ValueError("Expected weights to test, but got none. Pass --weights RUN/best.pt.")


def check_plan(doses: tuple[float, ...], slices: int) -> None:
    """Refuse doses outside (0, 1] or repeated ones, and too few slices.

    Raises:
        ValueError: doses or slices are refused.
    """
    if not doses or not all(0 < dose <= 1 for dose in doses) or len(set(doses)) < len(doses):
        raise ValueError(
            f"Expected dose fractions above 0 and up to 1, each once, but got {', '.join(map(str, doses))}."
        )
    if slices < 4:
        raise ValueError(
            f"Expected at least 4 slices per dose and phantom, but got {slices}. 16 give more precise results."
        )


def run_qa(options: QAOptions) -> Evaluation:
    """Scan the phantoms, denoise the scans, measure them, and write page and tables to ``options.out``.

    Raises:
        CheckpointError: there are no weights, or they are of another network.
        ConfigError: there is no config next to the weights, or the device is unknown.
        OutputError: ``out`` already holds results, or cannot be written.
    """
    from ct_cncl.pipeline.report.evaluation_page import write_page

    with alone_in(options.out):
        if (options.out / _RECORD).exists() and not options.overwrite:
            raise OutputError(
                f"{options.out} already holds results. Replace them with --overwrite, or choose another folder."
            )
        denoisers, files = _denoisers(options)
        evaluation = evaluate_phantoms(
            denoisers, doses=options.doses, slices=options.slices, scan=options.scan, files=files,
            progress=sys.stderr.isatty(),
        )  # fmt: skip
        write_page(evaluation, options.out / PAGE)
        write_tables(evaluation, options.out, last=_RECORD)  # last, so that a killed run does not look complete
    return evaluation


def _denoisers(options: QAOptions) -> tuple[dict[str, Denoiser], dict[str, str]]:
    """The denoisers, and the checksums of their weights, by name."""
    from ct_cncl.pipeline.inference.api import chosen_device
    from ct_cncl.pipeline.inference.streaming import Settings
    from ct_cncl.pipeline.inference.volume import denoise_volume
    from ct_cncl.pipeline.weights.load import open_weights

    device, settings = chosen_device(options.device), Settings()
    found: dict[str, Denoiser] = {}
    files = {}
    for path in options.weights:
        weights = open_weights(path, device, trust=options.trust)
        name = "bundled weights" if path is None else path.resolve().parent.name if path.suffix == ".pt" else path.stem
        name = name if name not in found else f"{name} ({len(found) + 1})"
        found[name] = lambda volume, weights=weights: denoise_volume(volume, weights, settings)  # type: ignore[misc]
        files[name] = f"weights sha256 {weights.checksum[:16]}"
    return found, files


def evaluate_phantoms(
    denoisers: Mapping[str, Denoiser],
    *,
    doses: tuple[float, ...],
    slices: int,
    scan: ScanSettings,
    files: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Run the phantom test with any denoisers.

    Args:
        denoisers: denoisers by name.
        doses: dose fractions.
        slices: number of slices of each phantom and dose, each with its own noise realization; 4 or more.
        scan: settings of the scans.
        files: description of each denoiser's weights, by name.
        progress: show a progress bar.

    Raises:
        ValueError: doses or slices are out of range.
    """
    check_plan(doses, slices)
    keys = {f"candidate{n}": name for n, name in enumerate(denoisers, start=1)}
    scanner = Scanner(scan)
    clean = {name: scanner.clean(make(scanner)) for name, make in _PHANTOMS.items()}
    measured: dict[tuple[str, float], DoseResult] = {}
    views: list[SliceView] = []
    places, inserted = places_in(scanner, clean["water"], slices), InsertFindings(keys, {}, {}, [])
    steps = len(doses) * (len(_PHANTOMS) + 1) * (1 + len(denoisers))
    with tqdm(total=steps, desc="phantoms", unit="scan", disable=not progress) as bar:
        for dose in sorted(doses, reverse=True):
            scans = {}
            for stream, (name, make) in enumerate(_PHANTOMS.items()):
                scans[name] = scanner.scan(make(scanner), dose, slices, stream=stream)
                bar.update()
            measured[INPUT, dose] = measure_dose(scanner, scans["water"], scans["discs"], scans["lesions"])
            others = scanner.scan(water(scanner), dose, slices, stream=len(_PHANTOMS))
            plain = insert_scans(scanner, scans["water"], others, places)
            first, second = (0.5 * (one + clean["water"][..., None]) for one in (scans["water"], others))
            less = insert_scans(scanner, first, second, places)  # half the noise: four times the dose
            judge = partial(measure_inserts, scanner, plain, clean=clean["water"], places=places)
            inserted.found[INPUT, dose], inserted.found[REFERENCE, dose] = judge(plain), judge(less)
            bar.update()
            shown = {name: {REFERENCE: clean[name], INPUT: volume[..., 0]} for name, volume in scans.items()}
            for key, title in keys.items():
                results = {}
                for name, volume in scans.items():
                    results[name] = _denoised(denoisers[title], volume, title)
                    shown[name][key] = results[name][..., 0]
                    bar.update()
                measured[key, dose] = measure_dose(scanner, results["water"], results["discs"], results["lesions"])
                own = plain.through(partial(_denoised, denoisers[title], title=title), results["water"])
                inserted.found[key, dose] = judge(own)
                if dose == shown_dose(doses):
                    inserted.at_strengths((key, dose), scanner, judge, (plain, own), (scans["discs"], results["discs"]))
                bar.update()
            views += [_view(name, dose, images, scanner) for name, images in shown.items() if name != "water"]
    found = QAResults(scanner, keys, tuple(sorted(doses, reverse=True)), measured, transfers(scanner, clean["discs"]))
    return _evaluation((found, inserted), views, slices, files or {})


def _denoised(denoiser: Denoiser, volume: np.ndarray, title: str) -> np.ndarray:
    result = np.asarray(denoiser(volume), dtype=np.float32)
    if result.shape != volume.shape or not np.isfinite(result).all():
        raise ValueError(
            f"Expected finite HU of shape {volume.shape} from {title}, but got shape {result.shape} with NaN or infinity in it. "
            "Use other weights."
        )
    return result


def _view(name: str, dose: float, images: Mapping[str, np.ndarray], scanner: Scanner) -> SliceView:
    whole = {key: np.rint(image).clip(-32768, 32767).astype(np.int16) for key, image in images.items()}
    return SliceView(f"{name}, dose {dose:g}", "phantom", scanner.pixel, whole)


def _evaluation(
    measured: tuple[QAResults, InsertFindings],
    views: list[SliceView],
    slices: int,
    files: Mapping[str, str],
) -> Evaluation:
    found, inserted = measured
    settings = found.scanner.settings
    methods = [
        Method(REFERENCE, "no noise", "reference", "reconstruction without noise"),
        Method(INPUT, "reconstruction", "input", "filtered back projection at the dose"),
        *(Method(key, name, "candidate", files.get(name, "")) for key, name in found.names.items()),
    ]
    words = ", ".join(f"{key} {value}" for key, value in asdict(settings).items())
    constants = _CONSTANTS | {
        "scan": f"{words}; {found.scanner.incident_photons:.4g} photons a channel and view at full dose; {slices} slices a dose and phantom"
    }
    return Evaluation(
        title=f"Phantom test of {', '.join(found.names.values())}",
        kind="qa",
        summary=sentences(found),
        methods=methods,
        measures=[],
        slices=views,
        slice_rows=[],
        patient_rows=[],
        summaries=[],
        comparisons=[],
        charts=[*charts(found), *inserted.charts(found.shown_dose)],
        tables=[*tables(found), *inserted.tables(found.doses)],
        provenance=provenance(
            windows={"full": WINDOWS["full"]}, seeds={"noise": settings.seed},
            files={name: files.get(name, "") for name in found.names.values()}, constants=constants,
        ),
        warnings=[CAUTION],
        verdict=phantom_answer(found, inserted, slices),
    )  # fmt: skip
