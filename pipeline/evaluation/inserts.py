"""``ct-cncl evaluate --inserts``: contrast kept on real scans, by any method that writes files.

First, copies of the scans with inserts are written; the method is run on both; then its two results are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve, Table
from ct_cncl.pipeline.evaluation.insert_views import SHOWN_SLICES, evenly, insert_verdict, insert_views
from ct_cncl.pipeline.evaluation.matching import OpenedScan, locate, match
from ct_cncl.pipeline.evaluation.provenance import provenance
from ct_cncl.pipeline.evaluation.record import INPUT, PAGE, REFERENCE, Evaluation, Method, SliceView
from ct_cncl.pipeline.evaluation.tables import write_tables
from ct_cncl.pipeline.metrics.bootstrap import Interval, bootstrap_mean
from ct_cncl.pipeline.metrics.inserts import INSERTS, Insert, Place, contrasts_kept, insert_places, with_inserts
from ct_cncl.transforms.anatomy.regions import noise_level
from ct_cncl.transforms.common.errors import DataError, OutputError
from ct_cncl.transforms.common.files import replacing, scratch_folder
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.series import SliceOrder, find_scans, read_scan, to_slices, voxel_spacing
from ct_cncl.transforms.series.nifti import write_float_nifti
from ct_cncl.transforms.series.values import RESULT

_MANIFEST = "inserts.json"
"""File next to the scans with inserts that lists the scans and the places of the inserts in them."""
INSERTS_TABLE = "inserts.csv"


class _Volume(NamedTuple):
    hu: np.ndarray
    order: SliceOrder
    pixel_mm: tuple[float, float]


def write_with_inserts(scans: Path, out: Path, *, seed: int = 0) -> int:
    """Write every scan with inserts at random places in soft tissue, as NIfTI with float32 HU, and the manifest of the places.

    Args:
        scans: a file or folder.
        out: folder to create.
        seed: seed of the places, 0 or above.

    Returns:
        Number of inserts.

    Raises:
        OutputError: ``out`` already holds files, or cannot be written.
        ScanError, DataError: there is nothing to read, two scans have the same name, or there is no place for any insert.
    """
    with alone_in(out):
        if out.exists() and any(out.iterdir()):
            raise OutputError(f"Expected a new folder for scans with inserts, but {out} holds files. Choose another.")
        return _write(scans, out, seed)


def _write(scans: Path, out: Path, seed: int) -> int:
    entries: list[dict[str, Any]] = []
    for source in find_scans(scans):
        scan = read_scan(source)
        name = f"{source.name}.nii.gz"
        if any(entry["file"] == name for entry in entries):
            raise DataError(
                f"Expected scans of different names under {scans}, but got {source.name} twice. Rename one."
            )
        own = _volume(scan.hu, scan.affine)
        places = insert_places(own.hu, own.pixel_mm, INSERTS, seed=seed)
        added = own.order.undo(with_inserts(own.hu, places, INSERTS, own.pixel_mm))
        write_float_nifti(added, scan.affine, out / name)
        entries.append(
            {"scan": source.name, "file": name, "shape": list(own.hu.shape), "places": [list(p) for p in places]}
        )
    total = sum(len(entry["places"]) for entry in entries)
    if not total:
        raise DataError(f"Expected soft tissue with room for inserts in {scans}, but found none. Name other scans.")
    content = {"seed": seed, "inserts": [one._asdict() for one in INSERTS], "scans": entries}
    with replacing(out / _MANIFEST) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return total


def evaluate_inserts(
    scans: Path,
    plain: Path,
    inserted: Path,
    manifest: Path,
    out: Path,
    *,
    patients: PatientFinder,
    overwrite: bool = False,
    page: Callable[[Evaluation, Path], object] | None = None,
) -> Evaluation:
    """Measure the contrast kept and the noise left by one method on real scans, by patient, and write tables to ``out``.

    Args:
        scans: scans to which the inserts were added.
        plain: the method's results for them.
        inserted: its results for the scans with inserts.
        manifest: the folder that :func:`write_with_inserts` made.
        out: folder of the tables.
        patients: finds the patient of a scan.
        overwrite: replace earlier results.
        page: writes the report, see :func:`~ct_cncl.pipeline.evaluation.run.evaluate_files`.

    Raises:
        DataError: results do not belong to the scans, or there is no manifest.
        OutputError: ``out`` already holds results.
    """
    with alone_in(out):
        if (out / INSERTS_TABLE).exists() and not overwrite:
            raise OutputError(f"{out} already holds results. Replace them with --overwrite, or choose another folder.")
        with scratch_folder(out) as scratch:
            evaluation = _evaluate(_manifest(manifest), (scans, plain, inserted), patients, scratch)
        if page is not None:
            page(evaluation, out / PAGE)
        write_tables(evaluation, out, last=INSERTS_TABLE)
    return evaluation


def _evaluate(
    stated: Mapping[str, Any],
    paths: tuple[Path, Path, Path],
    patients: PatientFinder,
    scratch: Path,
) -> Evaluation:
    kinds = [Insert(**one) for one in stated["inserts"]]
    views: list[SliceView] = []
    shares: dict[str, list[tuple[int, float]]] = {}
    noise: dict[str, list[float]] = {}
    reference, *others = (locate(path, patients, scratch)[RESULT] for path in paths)
    results = [match(reference, found, name=path.name) for path, found in zip(paths[1:], others, strict=True)]
    for scan, *made in zip(reference, *results, strict=True):
        before, after, with_them = (_read(one) for one in (scan, *made))
        places = _places(stated, scan.slices.source.name, before, (after, with_them))
        found = contrasts_kept(after.hu, with_them.hu, places, kinds, before.pixel_mm)
        shares.setdefault(scan.patient, []).extend((p.kind, share) for p, share in zip(places, found.tolist()))
        noise.setdefault(scan.patient, []).extend(_noise_left(before.hu, after.hu))
        volumes = {
            INPUT: with_inserts(before.hu, places, kinds, before.pixel_mm), REFERENCE: after.hu, "candidate1": with_them.hu,
        }  # fmt: skip
        views += insert_views(
            scan,
            f"patient {list(shares).index(scan.patient) + 1}",
            volumes,
            places,
            kinds,
            most=-(-SHOWN_SLICES // len(reference)),
        )
    return replace(
        _record(kinds, list(shares.values()), list(noise.values()), paths[1]), slices=evenly(views, SHOWN_SLICES)
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST if folder.is_dir() else folder
    try:
        found = read_json(path)
        return {"inserts": list(found["inserts"]), "scans": {entry["scan"]: entry for entry in found["scans"]}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"Expected {_MANIFEST} in {folder}, but got: {type(error).__name__}. Write it with `ct-cncl evaluate SCANS --inserts FOLDER`."
        ) from error


def _places(stated: Mapping[str, Any], name: str, before: _Volume, made: Sequence[_Volume]) -> list[Place]:
    entry = stated["scans"].get(name)
    if entry is None or list(before.hu.shape) != entry["shape"] or any(one.hu.shape != before.hu.shape for one in made):
        raise DataError(
            f"Expected {name} and its results to match the scan to which inserts were added, but got another scan or shape. Write the "
            "scans with inserts again."
        )
    return [Place(*place) for place in entry["places"]]


def _read(scan: OpenedScan) -> _Volume:
    found = read_scan(scan.slices.source)
    return _volume(found.hu, found.affine)


def _volume(hu: np.ndarray, affine: np.ndarray) -> _Volume:
    view, order = to_slices(hu, affine)
    spacing = voxel_spacing(order.affine)
    return _Volume(np.ascontiguousarray(view, dtype=np.float32), order, (float(spacing[0]), float(spacing[1])))


def _noise_left(before: np.ndarray, after: np.ndarray) -> Iterator[float]:
    """Noise after divided by noise before, for each slice with soft tissue."""
    for k in range(before.shape[2]):
        try:
            levels = [noise_level(one[..., k : k + 1]) for one in (before, after)]
        except ValueError:
            continue
        yield levels[1] / levels[0]


def _record(
    kinds: Sequence[Insert],
    shares: Sequence[Sequence[tuple[int, float]]],
    noise: Sequence[Sequence[float]],
    plain: Path,
) -> Evaluation:
    name = plain.resolve().name
    if not any(noise):
        raise DataError("Expected soft tissue to measure the noise in, but found none. Name other scans.")
    left = bootstrap_mean(np.array([np.mean(one) for one in noise if one]), seed=0)
    rows: list[list[float | str | None]] = []
    means = []
    for number, kind in enumerate(kinds):
        own = [[share for which, share in one if which == number] for one in shares]
        count, own = sum(map(len, own)), [one for one in own if one]
        if not own:
            rows.append([kind.name, 0, 0, None, "no place", None, ""])
            continue
        kept = bootstrap_mean(np.array([np.mean(one) for one in own]), seed=0)
        means.append(kept.mean)
        rows.append([kind.name, count, len(own), 100 * kept.mean, _ends(kept), 100 * left.mean, _ends(left)])
    note = (
        "Mean of f(y + s) - f(y) over the insert's disc, over the insert's mean there. Inserts average within patients, patients are "
        "averaged; intervals are over patients, none below 6. Noise left: in the calmest soft tissue, where anatomy counts as noise."
    )
    columns = ["insert", "inserts", "patients", "contrast kept %", "its 95 %", "noise left %", "their 95 %"]
    table = Table("inserts", "Contrast kept", columns, rows, (0, 0, 0, 0, 0, 0, 0), note)
    curve = Curve("candidate1", name, np.full(len(means), 100 * left.mean), 100 * np.array(means))
    chart = Chart("contrast_kept", "Contrast kept against noise kept", "noise kept, %", "contrast kept, %", [curve], note="One point an insert.")  # fmt: skip
    said = ", ".join(f"{row[3]:.0f} % of {row[0]}" for row in rows if isinstance(row[3], float))
    return Evaluation(
        title=f"Contrast kept by {name}", kind="evaluation", summary=[f"{name} keeps {said}; {100 * left.mean:.0f} % of the noise is left."],
        methods=[
            Method(REFERENCE, f"{name} without inserts", "reference", "the method's results for the scans as they are"),
            Method(INPUT, "scans with inserts", "input"), Method("candidate1", f"{name} with inserts", "candidate"),
        ],
        verdict=insert_verdict(name, rows, left, [len(one) for one in shares]),
        measures=[], slices=[], slice_rows=[], patient_rows=[], summaries=[], comparisons=[], charts=[chart], tables=[table],
        provenance=provenance(windows={}, seeds={"bootstrap": 0}, files={name: ""}, constants={"inserts": note}),
    )  # fmt: skip


def _ends(found: Interval) -> str:
    return "" if found.low is None or found.high is None else f"{100 * found.low:.0f} to {100 * found.high:.0f}"
