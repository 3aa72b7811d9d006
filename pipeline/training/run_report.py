"""The report at the end of a training or an ablation: figures on a few slices of the data set, and curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from ct_cncl.pipeline.common.checkpoint_file import BEST, LAST
from ct_cncl.pipeline.common.csv_files import read_csv
from ct_cncl.pipeline.evaluation.all_slices import AllSlices, SlicePlace, measure_place, view_of
from ct_cncl.pipeline.evaluation.build_record import build_record
from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table
from ct_cncl.pipeline.evaluation.measures import NOISE_KEYS, measures
from ct_cncl.pipeline.evaluation.provenance import CONSTANTS, provenance
from ct_cncl.pipeline.evaluation.record import INPUT, PAGE, REFERENCE, Evaluation, Method
from ct_cncl.pipeline.handlers.budget import SECONDS_KEY
from ct_cncl.pipeline.inference.streaming import BRANCHES, Settings, apply_network
from ct_cncl.pipeline.report.evaluation_page import write_page
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.locations import dataset_entries
from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.common.hu import WINDOWS
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.dataset.volume_store import mapped_volume
from ct_cncl.transforms.patches.padding import PaddingMaskd
from ct_cncl.transforms.patches.slice_pairs import SlicePairs, all_slices
from ct_cncl.transforms.series.grid import SliceGrid
from ct_cncl.transforms.series.orientation import slices_last
from ct_cncl.transforms.series.values import RESULT, keep_padding

_SHOWN = 6
"""Number of slices in a training's report."""
BEYOND_HU = 1e6
"""No image holds such values. A network whose training failed may give them."""
JUDGED_WINDOWS = ("full", "chest", "abdomen")
CURVES = {"psnr": "PSNR of the result", "psnr_content": "PSNR of C(y)", "psnr_denoised": "PSNR of y - N(y)"}
"""Titles of the charts over training, by the column of a run's metrics.csv."""


@dataclass(frozen=True)
class Candidate:
    """A trained network to show in the report.

    Attributes:
        name: its name in the report.
        description: a sentence about it.
        slices: the result and, if the network has branches, the maps, by the names of ``denoise``, each (K, x, y) HU; empty if
            there are no weights to evaluate.
        history: the rows of its metrics.csv.
    """

    name: str
    description: str
    slices: Mapping[str, np.ndarray]
    history: Sequence[Mapping[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """Pairs of slices from a data set.

    Attributes:
        reference: (K, x, y) HU.
        image: the low-dose slices, (K, x, y) HU.
        places: for each slice, the entry of the data list and the slice number.
        split: the split that the slices come from.
    """

    reference: np.ndarray
    image: np.ndarray
    places: Sequence[tuple[dict[str, Any], int]]
    split: str


def training_report(run: Path) -> Path:
    """Write ``report.html`` into a run's folder, with results of its best checkpoint on a few validation slices and its curves.

    Args:
        run: a folder that ``ct-cncl train`` wrote.

    Returns:
        Path of the page.

    Raises:
        CheckpointError: the run has no weights.
        DataError: the data set cannot be used.
    """
    best = run / BEST if (run / BEST).is_file() else run / LAST
    config = read_json(run / "config.json")
    dataset = config["dataset_dir"]
    weights = open_weights(best, torch.device("cuda" if torch.cuda.is_available() else "cpu"), trust=True)
    chosen = SlicePairs(
        dataset_entries(dataset, "validation", verify=False),
        PaddingMaskd("label"),
        max_slices=_SHOWN,
        context_slices=weights.slices,
    )
    settings = Settings(save=BRANCHES if weights.has_branches else ())
    found: dict[str, list[np.ndarray]] = {}
    for number in range(len(chosen)):
        item = chosen[number]
        stack = item["image"].numpy()
        own = {name: image[0] for name, image in apply_network(weights, stack[None], settings).items()}
        for name, image in keep_padding(own, stack[len(stack) // 2], item["padding"][0].numpy()).items():
            found.setdefault(name, []).append(image)
    candidate = Candidate(
        run.name, f"{best.name} of this training", {k: np.stack(v) for k, v in found.items()}, read_metrics(run)
    )
    pairs = pairs_at(chosen.slices, "validation")
    judged = evaluate_runs(
        [candidate], pairs, title=f"Training {run.name}", data_range=float(config["validate"]["data_range_hu"])
    )
    return write_page(judged, run / PAGE)


def evaluate_runs(
    candidates: Sequence[Candidate],
    pairs: Pairs,
    *,
    title: str,
    data_range: float,
    tables: Sequence[Table] = (),
    warnings: Sequence[str] = (),
    by_minutes: bool = False,
) -> Evaluation:
    """Evaluate networks on the same slices, with all figures of ``ct-cncl evaluate``.

    Args:
        candidates: at least one network.
        pairs: the slices that the candidates' results belong to.
        title: title of the page.
        data_range: data range of the scores in the candidates' histories, in HU.
        tables: further tables for the page.
        warnings: further warnings for the page.
        by_minutes: draw curves over minutes of training, not over iterations.
    """
    windows = {name: WINDOWS[name] for name in JUDGED_WINDOWS}
    keys = {f"candidate{n}": one for n, one in enumerate(candidates, start=1)}
    figures = measures(
        windows, region="scan", with_input=True, with_maps=any("disagreement" in one.slices for one in candidates)
    )
    methods = [
        Method(REFERENCE, "reference", "reference", f"{pairs.split} split of the data set, normal dose"),
        Method(INPUT, "input", "input", "the same slices, low dose"),
        *(Method(key, one.name, "candidate", one.description) for key, one in keys.items() if one.slices),
    ]
    scans = list({id(entry): entry for entry, _ in pairs.places}.values())
    numbers = {entry["patient"]: n for n, entry in enumerate({e["patient"]: e for e in scans}.values(), start=1)}
    patients = [f"patient {numbers[entry['patient']]}" for entry in scans]
    collected = AllSlices()
    for place, (entry, z) in enumerate(pairs.places):
        scan = next(n for n, one in enumerate(scans) if one is entry)
        read, at = _place(pairs, place, {key: one.slices for key, one in keys.items() if one.slices})
        judged = measure_place(read, [m.key for m in figures if m.key not in NOISE_KEYS], windows, "scan")
        shown = [method.key for method in methods if method.key != REFERENCE]
        name = f"{pairs.split}/{Path(entry['label']).name.split('_label')[0].split('.nii')[0]}"
        collected.add(judged, shown, name=name, number=z, scan=scan, patient=patients[scan])
        collected.views.append(view_of(read, f"{name}, slice {z}", patients[scan], *at))
    few = f"Figures are over the {counted(len(pairs.places), 'slice')} shown here, of the {pairs.split} split."
    return build_record(
        collected, methods, figures,
        windows=windows, pixels=[_pixel_mm(entry) for entry in scans], patients=patients, seed=0, title=title,
        kind="training", warnings=[few, *warnings], tables=tables, charts=training_charts(keys, data_range, by_minutes),
        provenance=provenance(windows=windows, seeds={"bootstrap": 0}, files={}, constants=CONSTANTS),
    )  # fmt: skip


def pairs_at(slices: Sequence[tuple[dict[str, Any], int]], split: str) -> Pairs:
    """Read the reference and the input of slices, each given by its entry of the data list and its number."""

    def read(key: str) -> np.ndarray:
        return np.stack([np.asarray(mapped_volume(entry[key])[:, :, z], dtype=np.float32) for entry, z in slices])

    return Pairs(read("label"), read("image"), [(entry, z) for entry, z in slices], split)


def pairs_by_number(dataset: Path, split: str, numbers: Sequence[int]) -> Pairs:
    """Read slices by their index among all slices of a split; the middle one if no index is given."""
    slices = all_slices(dataset_entries(dataset, split, verify=False))
    numbers = numbers if len(numbers) else [len(slices) // 2]
    return pairs_at([slices[number] for number in numbers], split)


def read_metrics(run: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``; empty if there is no such file."""
    return read_csv(run / "metrics.csv")


def training_charts(candidates: Mapping[str, Candidate], data_range: float, by_minutes: bool) -> list[Chart]:
    """Charts over training of the validation PSNR of the result and the branches, and of the loss, as far as there are values."""
    across = "minutes of training" if by_minutes else "iterations"
    charts = []
    for column, title in CURVES.items():
        curves = [
            curve for key, one in candidates.items() if (curve := _curve(key, one, column, by_minutes)) is not None
        ]
        if curves:
            curves += _input_line(candidates, curves)
            y_label = f"PSNR, dB (range {data_range:g} HU)"
            note = "On the validation slices of the training, after each epoch."
            charts.append(Chart(f"training_{column}", title, across, y_label, curves, note=note))
    losses = [curve for key, one in candidates.items() if (curve := _curve(key, one, "loss", by_minutes)) is not None]
    if losses:
        charts.append(
            Chart("training_loss", "Training loss", across, "loss of the generator", losses, note="Epoch means.")
        )
    return charts


def _curve(key: str, one: Candidate, column: str, by_minutes: bool) -> Curve | None:
    across = SECONDS_KEY if by_minutes else "iteration"
    points = [(float(row[across]), float(row[column])) for row in one.history if row.get(across) and row.get(column)]
    points = [(x / 60 if by_minutes else x, y) for x, y in points if np.isfinite(y)]
    if not points:
        return None
    x, y = np.array(points).T
    return Curve(key, one.name, x, y)


def _input_line(candidates: Mapping[str, Candidate], curves: Sequence[Curve]) -> list[Curve]:
    values = [row["psnr_input"] for one in candidates.values() for row in one.history if row.get("psnr_input")]
    if not values:
        return []
    x = np.array([min(curve.x.min() for curve in curves), max(curve.x.max() for curve in curves)])
    return [Curve(INPUT, "input", x, np.full(2, float(values[0])), dashed=True)]


def _place(
    pairs: Pairs, place: int, slices: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[SlicePlace, tuple[SliceGrid, int]]:
    """One slice of all images, oriented as a radiologist views it, with its grid and number."""
    entry, z = pairs.places[place]
    turn, grid, forwards = _turning(entry)
    reference = turn(pairs.reference[place])
    found = SlicePlace(reference, padding_mask(reference), {INPUT: turn(pairs.image[place])})
    for key, own in slices.items():
        here = {name: turn(stack[place]) for name, stack in own.items()}
        if any(not (np.abs(hu) < BEYOND_HU).all() for hu in here.values()):
            found.missing[key] = f"the network gave NaN or values beyond {BEYOND_HU:g} HU"
            continue
        found.images[key] = here[RESULT]
        found.maps[key] = {name: here[name] for name in BRANCHES if name in here}
    return found, (grid, z if forwards else len(grid.corners) - 1 - z)


def _turning(entry: Mapping[str, Any]) -> tuple[Any, SliceGrid, bool]:
    """A function that turns a stored slice (x, y) to (columns, rows), the grid of the turned slices, and whether they keep their order."""
    volume: Any = nib.load(entry["label"])
    order = slices_last(volume.affine, volume.shape, axis=2)
    lengths = [volume.shape[axis] for axis in np.argsort(order.forward[:, 0])]
    grid = SliceGrid.of_volume(order.affine, lengths)
    return lambda hu: np.ascontiguousarray(order.apply(hu[:, :, None])[:, :, 0]), grid, bool(order.forward[2, 1] > 0)


def _pixel_mm(entry: Mapping[str, Any]) -> tuple[float, float]:
    return _turning(entry)[1].pixel_mm
