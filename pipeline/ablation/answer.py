"""The conclusion of an ablation: which variant gains most over all slices, and what it does to noise and structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ct_cncl.pipeline.evaluation.answer import figures_of, first_psnr, in_words
from ct_cncl.pipeline.evaluation.record import Evaluation, KeyFigure, Verdict
from ct_cncl.transforms.common.numbers import counted


def ablation_answer(
    found: Evaluation, rows: Sequence[Mapping[str, Any]], *, split: str, data_range: float
) -> Verdict | None:
    """The verdict on the variant with the highest PSNR; None if no variant was evaluated.

    Args:
        found: the evaluation on the slices that the page shows, for the figures of noise and structure.
        rows: rows of the table, over all slices.
        split: split of the data set.
        data_range: data range of PSNR in HU.
    """
    known = [row for row in rows if row.get("gain_psnr") is not None]
    if not known:
        return None
    best = max(known, key=lambda row: float(row["gain_psnr"]))
    gains = [float(row["gain_psnr"]) for row in known]
    gain = float(best["gain_psnr"])
    several = len(gains) > 1
    range_of = f"smallest and largest of {len(gains)} variants" if several else "1 variant, no range"
    where = f"all slices of the {split} split, range {data_range:g} HU"
    low, high = (min(gains), max(gains)) if several else (None, None)
    figures = [KeyFigure("Gain in PSNR", gain, "dB", 2, low, high, range_of, where, signed=True)]
    words = [f"{'gains' if gain >= 0 else 'loses'} {abs(gain):.2f} dB PSNR on the input"]
    first = first_psnr(found)
    method = next((one for one in found.methods if one.name == best["variant"]), None)
    if first is not None and method is not None:
        others = {figure: text for figure, text in figures_of(found, method, first).items() if figure.unit != "dB"}
        figures += list(others)
        words += list(others.values())
    failed = len(rows) - len(known)
    judged = f"{counted(len(rows), 'variant')}, trained alike, on the {split} split"
    judged += f"; {failed} could not be judged" if failed else ""
    rank = f"Best of {len(known)} by PSNR: " if several else ""
    return Verdict(judged, f"{rank}{best['variant']} {in_words(words)}.", figures, method.key if method else "")
