"""Data of the page's slice viewer: packed planes, and views that the browser makes from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE, Evaluation, Method, SliceView
from ct_cncl.pipeline.report.colours import as_hex, difference_map, grey_map, sequential_map
from ct_cncl.pipeline.report.packing import pack_plane
from ct_cncl.pipeline.report.tables import MINUS, number_text, slice_label, window_of
from ct_cncl.transforms.anatomy.body import body_mask
from ct_cncl.transforms.common.hu import WINDOWS

STEPS = {"noise": 1.0, "content": 1.0, "disagreement": 0.5}
"""HU between two stored values of the maps; images are stored in steps of 1 HU, like scanners' files."""
ERRORS_SHOWN = 95
"""Percentage of the best result's nonzero errors around the body that lie within the initial scale of differences."""
STEPS_OF_SCALES = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
"""Ends of the scales of maps, as multiples of a power of ten."""
PRESETS = ("chest", "abdomen", "head", "bone", "full")
"""Windows in the order of their keys 1 to 5."""


@dataclass(frozen=True)
class PackedSlices:
    """Slices ready for a page.

    Attributes:
        manifest: everything about the slices except their pixels, for JSON.
        planes: packed planes by the id that the manifest names.
        left_out: number of slices that did not fit.
    """

    manifest: dict[str, Any]
    planes: dict[str, str]
    left_out: int


def pack_planes(evaluation: Evaluation) -> list[dict[str, str]]:
    """The packed planes of every slice by name.

    Differences to the reference and the removed noise are not stored as planes; the browser computes them.
    """
    with ThreadPoolExecutor() as pool:  # zlib and numpy let other threads run
        return list(pool.map(_packed_planes, evaluation.slices))


def choose_slices(
    evaluation: Evaluation, packed: Sequence[Mapping[str, str]], *, max_bytes: int | None = None
) -> PackedSlices:
    """Choose as many slices as fit, evenly spaced if not all of them do.

    Args:
        evaluation: the evaluation with its slices.
        packed: planes of the slices, from :func:`pack_planes`.
        max_bytes: limit for all planes together; one slice is taken even if it exceeds the limit. None takes all.
    """
    sizes = [sum(map(len, planes.values())) for planes in packed]
    kept = evenly_within(sizes, sum(sizes) if max_bytes is None else max_bytes)
    planes: dict[str, str] = {}
    slices = []
    for number, position in enumerate(kept):
        own = {name: f"plane-{number}-{place}" for place, name in enumerate(packed[position])}
        planes |= {identity: packed[position][name] for name, identity in own.items()}
        one = evaluation.slices[position]
        slices.append(_described(one, own) | {"figures": _figures(evaluation, one.label)})
    _share_frames(slices)
    _share_scales(slices, [evaluation.slices[position] for position in kept])
    manifest = {
        "slices": slices,
        "views": _views(evaluation),
        "first": "" if evaluation.verdict is None else evaluation.verdict.method,
        "presets": [{"name": name, "centre": WINDOWS[name].centre, "width": WINDOWS[name].width} for name in PRESETS],
        "colours": {
            "image": as_hex(grey_map()),
            "noise": as_hex(grey_map()),
            "difference": as_hex(difference_map()),
            "disagreement": as_hex(sequential_map()),
        },
        "scales": slices[0]["scales"] if slices else {"difference": 1.0, "disagreement": 1.0},
        "within": ERRORS_SHOWN,
        "window": _first_window(evaluation.windows),
    }
    return PackedSlices(manifest, planes, len(packed) - len(kept))


def evenly_within(sizes: Sequence[int], limit: int) -> list[int]:
    """Positions of as many evenly spaced items as fit into ``limit``; at least one, if there are any.

    >>> evenly_within([4, 4, 4, 4], 9), evenly_within([4, 4], 100), evenly_within([50], 9)
    ([1, 3], [0, 1], [0])
    """
    for count in range(len(sizes), 0, -1):
        chosen = [(2 * k + 1) * len(sizes) // (2 * count) for k in range(count)]
        if count == 1 or sum(sizes[position] for position in chosen) <= limit:
            return chosen
    return []


def error_scale(errors: np.ndarray) -> float:
    """The end of a map's scale, HU: a percentile of nonzero absolute errors, rounded up to a step of the scales.

    >>> error_scale(np.array([3.0, -13.0])), error_scale(np.zeros(3)), error_scale(np.array([np.nan]))
    (15.0, 1.0, 1.0)
    """
    finite = np.abs(errors[np.isfinite(errors) & (errors != 0)])  # pixels without a difference need no scale
    high = float(np.percentile(finite, ERRORS_SHOWN)) if finite.size else 0.0
    if not high > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(high))
    return float(next(factor * power for factor in STEPS_OF_SCALES if factor * power >= high))


def _packed_planes(one: SliceView) -> dict[str, str]:
    """Packed planes by name: the method's key, or key and map ("candidate1 noise")."""
    planes = {key: pack_plane(image) for key, image in one.images.items()}
    for key, maps in one.maps.items():
        planes |= {f"{key} {name}": pack_plane(image, step=STEPS[name]) for name, image in maps.items()}
    return planes


def _described(one: SliceView, identities: Mapping[str, str]) -> dict[str, Any]:
    columns, rows = one.images[REFERENCE].shape
    return {
        "label": one.label,
        "patient": one.patient,
        "note": one.note,
        "columns": columns,
        "rows": rows,
        "spacing": [float(size) for size in one.spacing_mm],
        "sides": list(one.sides),
        "position": one.position,
        "marks": [
            {"label": mark.label, "column": mark.column + 0.5, "row": mark.row + 0.5, "diameter": mark.diameter_mm}
            for mark in one.marks
        ],
        "body": _body_box(one.images[REFERENCE]),
        "planes": {
            name: {"id": identity, "step": STEPS.get(name.partition(" ")[2], 1.0)}
            for name, identity in identities.items()
        },
    }


def _body_box(hu: np.ndarray) -> list[int]:
    """Left, top, right and bottom of the patient in pixels, which are shown at first; the whole slice if it shows no patient."""
    step = max(1, min(hu.shape) // 128)  # precise enough for a frame
    mask = body_mask(np.nan_to_num(np.asarray(hu[::step, ::step], dtype=np.float32), nan=-1024.0))
    if not mask.any():
        return [0, 0, *hu.shape]
    (left, right), (top, bottom) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]] * step for axis in (1, 0))
    return [int(left), int(top), int(right) + step, int(bottom) + step]


def _by_scan(slices: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Positions of the slices of each scan."""
    scans: dict[tuple[Any, ...], list[int]] = {}
    for place, one in enumerate(slices):
        scans.setdefault((one["label"].rpartition(", slice ")[0], one["columns"], one["rows"]), []).append(place)
    return list(scans.values())


def _share_scales(slices: Sequence[dict[str, Any]], views: Sequence[SliceView]) -> None:
    """Give all slices of a scan one scale of the maps; another scan may have ten times as much noise."""
    for scan in _by_scan(slices):
        shared = _scales([views[place] for place in scan], [slices[place]["body"] for place in scan])
        for place in scan:
            slices[place]["scales"] = shared


def _share_frames(slices: Sequence[dict[str, Any]]) -> None:
    """Give all slices of a scan one frame, so that scrolling through it does not move the picture."""
    for places in _by_scan(slices):
        scan = [slices[place] for place in places]
        boxes = np.array([one["body"] for one in scan])
        shared = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
        for one in scan:
            one["body"] = shared


def _figures(evaluation: Evaluation, label: str) -> dict[str, str]:
    """Text with each method's PSNR on a slice, in the first window, by method key."""
    measure = next((one for one in evaluation.measures if one.key.startswith("psnr")), None)
    if measure is None:
        return {}
    window = window_of(measure, evaluation.windows) or measure.conditions
    return {
        row.method: f"PSNR {number_text(row.values[measure.key], measure.digits)} dB ({window})"
        for row in evaluation.slice_rows
        if slice_label(row.scan, row.slice) == label and measure.key in row.values
    }


def _views(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The views that can be chosen, method by method; each is a sum of signed planes, which the browser computes."""
    images = {key for one in evaluation.slices for key in one.images}
    views = []
    for method in sorted(evaluation.methods, key=lambda one: (one.role != "reference", one.role != "input")):
        if method.key not in images:
            continue
        maps = {name for one in evaluation.slices for name in one.maps.get(method.key, {})}
        views += [
            {"method": method.key, "kind": kind, "title": title, "terms": terms, "absolute": absolute}
            for kind, title, terms, absolute in _views_of(
                method, maps, with_input=INPUT in images, reference=evaluation.method(REFERENCE).name
            )
        ]
    return views


def _views_of(
    method: Method, maps: set[str], *, with_input: bool, reference: str
) -> Iterator[tuple[str, str, list[tuple[str, int]], bool]]:
    """Views of one method: kind, title, signed planes, and whether the absolute value is shown."""
    key, name = method.key, method.name
    noise, content = f"{key} noise", f"{key} content"
    yield "image", name, [(key, 1)], False
    if method.role == "reference":
        return
    yield "difference", f"{name} {MINUS} {reference}", [(key, 1), (REFERENCE, -1)], False
    if method.role == "input":
        return
    if with_input:
        yield "noise", f"{name}: removed from the input", [(INPUT, 1), (key, -1)], False
    if "noise" in maps:
        yield "noise", f"{name}: N(y), noise predicted", [(noise, 1)], False
    if "content" in maps:
        yield "difference", f"{name}: C(y) {MINUS} {reference}", [(content, 1), (REFERENCE, -1)], False
    if "noise" in maps and with_input:
        yield (
            "difference",
            f"{name}: y {MINUS} N(y) {MINUS} {reference}",
            [(INPUT, 1), (noise, -1), (REFERENCE, -1)],
            False,
        )
    if "disagreement" in maps:
        yield "disagreement", f"{name}: disagreement of C and N", [(f"{key} disagreement", 1)], False
    elif {"noise", "content"} <= maps and with_input:
        yield "disagreement", f"{name}: disagreement of C and N", [(content, 1), (noise, 1), (INPUT, -1)], True


def _scales(slices: Sequence[SliceView], boxes: Sequence[Sequence[int]]) -> dict[str, float]:
    """Initial scales of differences and of disagreement, HU.

    The result with the smallest errors sets the scale of differences, so that its map is not black next to a worse one; without
    results, the input sets it.

    Args:
        slices: slices to show.
        boxes: left, top, right and bottom of the body in each slice, pixels.
    """
    errors: dict[str, list[np.ndarray]] = {}
    apart = []
    for one, (left, top, right, bottom) in zip(slices, boxes, strict=True):
        judged = [key for key in one.images if key not in (REFERENCE, INPUT)] or [INPUT] * (INPUT in one.images)
        shown = np.s_[left:right, top:bottom]
        reference = np.asarray(one.images[REFERENCE][shown], dtype=np.float32)
        for key in judged:
            errors.setdefault(key, []).append((one.images[key][shown] - reference).ravel())
        apart += [np.ravel(named["disagreement"][shown]) for named in one.maps.values() if "disagreement" in named]
    each = [error_scale(np.concatenate(own)) for own in errors.values() if any(part.any() for part in own)]
    return {"difference": min(each, default=1.0), "disagreement": error_scale(np.concatenate(apart)) if apart else 1.0}


def _first_window(windows: Mapping[str, tuple[float, float]]) -> str:
    """The window shown first: the most common one in which figures were computed."""
    return next((name for name in ("abdomen", *PRESETS) if name in windows), "abdomen")
