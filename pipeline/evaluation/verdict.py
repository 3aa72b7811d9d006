"""The result of an evaluation in a few plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ct_cncl.pipeline.evaluation.measures import tissue_key, tissue_names
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE, ComparisonRow, Measure, Method, SummaryRow


def verdict_sentences(
    methods: Sequence[Method],
    measures: Sequence[Measure],
    summaries: Sequence[SummaryRow],
    comparisons: Sequence[ComparisonRow],
) -> list[str]:
    """One sentence for each candidate on its gains and costs, and one on the best candidate.

    Args:
        methods: all methods.
        measures: all measures.
        summaries: all rows of the summary.
        comparisons: all comparisons.
    """
    first = next((one for one in measures if one.key.startswith("psnr")), None)
    if first is None:
        return []
    rows = {(row.method, row.measure): row for row in summaries}
    gains = {row.first: row for row in comparisons if row.second == INPUT and row.measure == first.key}
    sentences = [
        _of_one(method, first, rows, gains.get(method.key), tissue_names(measures))
        for method in methods
        if method.role == "candidate"
    ]
    judged = [
        method for method in methods if method.role == "candidate" and _mean(rows, method.key, first.key) is not None
    ]
    if len(judged) > 1:
        best = max(judged, key=lambda method: _mean(rows, method.key, first.key) or 0.0)
        sentences.append(
            f"Highest {first.title}: {best.name}. Look at texture, bias and leakage before choosing by it."
        )
    return sentences


def _mean(rows: dict[tuple[str, str], SummaryRow], method: str, measure: str) -> float | None:
    row = rows.get((method, measure))
    return None if row is None else row.mean


def _of_one(
    method: Method,
    first: Measure,
    rows: dict[tuple[str, str], SummaryRow],
    gain: ComparisonRow | None,
    tissues: Sequence[str],
) -> str:
    row = rows.get((method.key, first.key))
    if row is None or row.mean is None:
        return f"{method.name}: {first.title} was not computed."
    text = f"{method.name}: {first.title} {row.mean:.2f} dB over {row.count} {row.over}"
    if gain is not None and gain.difference is not None:
        text += f", {gain.difference:+.2f} dB against the input"
        text += f" (95 % interval {gain.low:+.2f} to {gain.high:+.2f})" if gain.low is not None else ""
    parts = []
    if (noise := _mean(rows, method.key, "noise")) is not None:
        before, own = _mean(rows, INPUT, "noise"), _mean(rows, REFERENCE, "noise")
        text_noise = f"noise {noise:.1f} HU" + (f" of {before:.1f}" if before is not None else "")
        parts.append(text_noise + (f" (the {REFERENCE} has {own:.1f})" if own is not None else ""))
    if (distance := _mean(rows, method.key, "nps_distance")) is not None:
        parts.append(f"noise power {100 * distance:.0f} % away from the {REFERENCE}'s")
    biases = {
        name: mean for name in tissues if (mean := _mean(rows, method.key, f"bias_{tissue_key(name)}")) is not None
    }
    if biases:
        tissue = max(biases, key=lambda name: abs(biases[name]))
        parts.append(f"largest HU bias {biases[tissue]:+.1f} in {tissue}")
    return f"{text}; {', '.join(parts)}." if parts else f"{text}."
