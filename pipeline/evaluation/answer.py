"""The result of an evaluation in one sentence with three figures, each with its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ct_cncl.pipeline.evaluation.measures import NOISE_KEYS, tissue_key, tissue_names
from ct_cncl.pipeline.evaluation.record import (
    INPUT,
    ComparisonRow,
    Evaluation,
    KeyFigure,
    Measure,
    Method,
    SummaryRow,
    Verdict,
)
from ct_cncl.transforms.common.numbers import counted


def evaluation_answer(found: Evaluation) -> Verdict | None:
    """What the best candidate gains, how much noise it leaves and whether it harms structure; None if there is no figure.

    The best candidate is the one with the highest PSNR in the first window.
    """
    first = first_psnr(found)
    if first is None:
        return None
    candidates = [one for one in found.methods if one.role == "candidate"]
    shown = candidates or [one for one in found.methods if one.role == "input"]
    known = [one for one in shown if _mean(found, one.key, first.key) is not None]
    if not known:
        return None
    best = max(known, key=lambda one: _mean(found, one.key, first.key) or 0.0)
    parts = figures_of(found, best, first)
    rank = f"Best of {len(known)} by PSNR: " if len(known) > 1 else ""
    return Verdict(judged(found), f"{rank}{best.name} {in_words(list(parts.values()))}.", list(parts), best.key)


def first_psnr(found: Evaluation) -> Measure | None:
    """PSNR in the first window."""
    return next((one for one in found.measures if one.key.startswith("psnr")), None)


def figures_of(found: Evaluation, best: Method, first: Measure) -> dict[KeyFigure, str]:
    """Gain, remaining noise and harm of one candidate, each with its clause of the sentence.

    Args:
        found: the evaluation.
        best: the candidate.
        first: the PSNR that decides.
    """
    pairs = (_gain(found, best, first), _noise(found, best), _harm(found, best))
    return {figure: words for figure, words in pairs if figure is not None}


def in_words(parts: Sequence[str]) -> str:
    """Join clauses with commas and "and".

    >>> in_words(["a", "b", "c"]), in_words(["a"])
    ('a, b and c', 'a')
    """
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def judged(found: Evaluation) -> str:
    """Which methods were compared with which reference, on how many slices, scans and patients."""
    names = [one.name for one in found.methods if one.role == "candidate"]
    who = f"{len(names)} methods" if len(names) > 2 else " and ".join(names) or "The input"
    reference = next((one for one in found.methods if one.role == "reference"), None)
    where = f" ({reference.description})" if reference and reference.description else ""
    beside = " and the input" if names and any(one.role == "input" for one in found.methods) else ""
    counts = (
        (len({(row.scan, row.slice, row.patient) for row in found.slice_rows}), "slice"),
        (len({(row.scan, row.patient) for row in found.slice_rows}), "scan"),
        (len({row.patient for row in found.slice_rows}), "patient"),
    )
    size = ", ".join(counted(count, word) for count, word in counts)
    return f"{who}{beside} against the reference{where}: {size}"


def _gain(found: Evaluation, best: Method, first: Measure) -> tuple[KeyFigure | None, str]:
    gain = _gain_row(found, best.key, first.key)
    if gain is None or gain.difference is None:
        mean = _mean(found, best.key, first.key)
        if mean is None:
            return None, ""
        figure = _figure(found, best, first, first.title)
        return figure, f"has {first.title} {mean:.2f} dB"
    low, high, of = gain.low, gain.high, f"95 % interval over {gain.count} {gain.over}"
    if low is None or high is None:
        low, high, of = _ends(_differences(found, best.key, first.key, gain.over), gain.over)
    figure = KeyFigure(
        f"Gain in {first.title}", gain.difference, first.unit, first.digits, low, high, of, _short(first), signed=True
    )
    verb = "gains" if gain.difference >= 0 else "loses"
    return figure, f"{verb} {abs(gain.difference):.2f} dB PSNR on the input"


def _noise(found: Evaluation, best: Method) -> tuple[KeyFigure | None, str]:
    measure = next((one for one in found.measures if one.key == "noise"), None)
    left = _mean(found, best.key, "noise")
    if measure is None or left is None:
        return None, ""
    before = _mean(found, INPUT, "noise") if best.key != INPUT else None
    where = "in calm soft tissue" + ("" if before is None else f"; input {before:.1f} HU")
    figure = _figure(found, best, measure, "Noise left", where=where)
    if before is None or not before > 0:
        return figure, f"holds {left:.1f} HU of noise"
    return figure, f"leaves {100 * left / before:.0f} % of its noise ({left:.1f} of {before:.1f} HU)"


def _harm(found: Evaluation, best: Method) -> tuple[KeyFigure | None, str]:
    """Structure leakage or, without an input to measure it by, the largest bias of a tissue."""
    measure = next((one for one in found.measures if one.key == "leakage"), None)
    leakage = _mean(found, best.key, "leakage")
    if measure is not None and leakage is not None:
        where = "0 is best; above 0 anatomy was removed"
        return _figure(
            found, best, measure, measure.title, where=where
        ), f"has a structure leakage of {leakage:.3f} (0 is best)"
    biases = {
        name: mean
        for name in tissue_names(found.measures)
        if (mean := _mean(found, best.key, f"bias_{tissue_key(name)}")) is not None
    }
    if not biases:
        return None, ""
    tissue = max(biases, key=lambda name: abs(biases[name]))
    measure = next(one for one in found.measures if one.key == f"bias_{tissue_key(tissue)}")
    figure = _figure(found, best, measure, f"Largest bias, {tissue}", signed=True)
    return figure, f"is off by at most {biases[tissue]:+.1f} HU ({tissue})"


def _figure(
    found: Evaluation, best: Method, measure: Measure, title: str, *, where: str = "", signed: bool = False
) -> KeyFigure:
    row = _row(found, best.key, measure.key)
    assert row is not None
    assert row.mean is not None
    low, high, of = row.low, row.high, f"95 % interval over {row.count} {row.over}"
    if low is None or high is None:
        low, high, of = _ends(list(_values(found, best.key, measure.key, row.over).values()), row.over)
    return KeyFigure(title, row.mean, measure.unit, measure.digits, low, high, of, where or _short(measure), signed)


def _short(measure: Measure) -> str:
    """The measure's window and range, without its pixels; the page's section on the method gives all conditions."""
    return measure.conditions.split(";")[0]


def _values(found: Evaluation, method: str, key: str, over: str) -> Mapping[tuple[str, ...], float]:
    if over == "patients" or key in NOISE_KEYS:
        return {
            (row.patient,): row.values[key] for row in found.patient_rows if row.method == method and key in row.values
        }
    return {
        (row.patient, row.scan, str(row.slice)): row.values[key]
        for row in found.slice_rows
        if row.method == method and key in row.values
    }


def _differences(found: Evaluation, method: str, key: str, over: str) -> list[float]:
    ours, theirs = (_values(found, one, key, over) for one in (method, INPUT))
    return [ours[place] - theirs[place] for place in ours if place in theirs]


def _ends(values: Sequence[float], over: str) -> tuple[float | None, float | None, str]:
    """Smallest and largest value, for figures with too few values for an interval."""
    if len(values) < 2:
        return None, None, f"1 {over.removesuffix('s')}, no range"
    return min(values), max(values), f"smallest and largest of {len(values)} {over}"


def _row(found: Evaluation, method: str, measure: str) -> SummaryRow | None:
    return next((row for row in found.summaries if (row.method, row.measure) == (method, measure)), None)


def _mean(found: Evaluation, method: str, measure: str) -> float | None:
    row = _row(found, method, measure)
    return None if row is None else row.mean


def _gain_row(found: Evaluation, method: str, measure: str) -> ComparisonRow | None:
    wanted = (method, INPUT, measure)
    return next((row for row in found.comparisons if (row.first, row.second, row.measure) == wanted), None)
