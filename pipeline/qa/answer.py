"""The result of the phantom test in one sentence with three figures."""

from __future__ import annotations

from collections.abc import Mapping

from ct_cncl.pipeline.evaluation.answer import in_words
from ct_cncl.pipeline.evaluation.record import INPUT, KeyFigure, Verdict
from ct_cncl.pipeline.metrics.bootstrap import Interval
from ct_cncl.pipeline.metrics.inserts import Insert
from ct_cncl.pipeline.metrics.observer import Detectability
from ct_cncl.pipeline.qa.insert_pages import InsertFindings
from ct_cncl.pipeline.qa.pages import INTERVAL, QAResults
from ct_cncl.pipeline.qa.phantoms import LESIONS
from ct_cncl.transforms.common.numbers import counted


def phantom_answer(found: QAResults, inserted: InsertFindings, slices: int) -> Verdict | None:
    """Remaining noise, contrast kept and detectability of the denoiser that leaves the least noise, at the shown dose.

    Args:
        found: results for water, discs and lesions.
        inserted: results for small inserts.
        slices: number of slices of each phantom and dose.
    """
    dose = found.shown_dose
    shares = {key: _shares(found, key) for key in found.names}
    known = {key: share for key, share in shares.items() if dose in share}
    if not known:
        return None
    key = min(known, key=lambda one: known[one][dose])
    name, share = found.names[key], known[key]
    before, after = (found.measured[one, dose].noise for one in (INPUT, key))
    assert before is not None
    assert after is not None
    figures = [
        KeyFigure(
            "Noise left", share[dose], "%", 0, min(share.values()), max(share.values()),
            f"smallest and largest of {counted(len(share), 'dose')}",
            f"water, dose {dose:g}: {after.level_hu:.1f} of {before.level_hu:.1f} HU",
        )
    ]  # fmt: skip
    parts = [f"leaves {share[dose]:.0f} % of the noise in water at dose {dose:g}"]
    for figure, words in (_contrast(inserted.found[key, dose].kept), _detectability(found, key, dose)):
        if figure is not None:
            figures.append(figure)
            parts.append(words)
    rank = f"Least noise of {len(known)}: " if len(known) > 1 else ""
    doses = ", ".join(f"{one:g}" for one in found.doses)
    judged = f"{' and '.join(found.names.values())} on phantoms of water, discs and lesions: dose {doses}, {counted(slices, 'slice')} each"
    return Verdict(judged, f"{rank}{name} {in_words(parts)}.", figures, key)


def _shares(found: QAResults, key: str) -> dict[float, float]:
    """Noise after divided by noise before, in per cent, by dose."""
    shares = {}
    for dose in found.doses:
        before, after = (found.measured[one, dose].noise for one in (INPUT, key))
        if before is not None and after is not None and before.level_hu > 0:
            shares[dose] = 100 * after.level_hu / before.level_hu
    return shares


def _contrast(kept: Mapping[Insert, Interval]) -> tuple[KeyFigure | None, str]:
    """Contrast kept of the insert that loses most."""
    if not kept:
        return None, ""
    worst = min(kept, key=lambda one: kept[one].mean)
    own = kept[worst]
    known = own.low is not None and own.high is not None
    figure = KeyFigure(
        "Contrast kept", 100 * own.mean, "%", 0,
        100 * own.low if own.low is not None else None, 100 * own.high if own.high is not None else None,
        f"95 % interval over {own.size} slices" if known else f"{counted(own.size, 'slice')}, too few for an interval",
        f"insert of {worst.name}, the worst of {len(kept)}",
    )  # fmt: skip
    return figure, f"keeps {100 * own.mean:.0f} % of the contrast of the worst insert ({worst.name})"


def _detectability(found: QAResults, key: str, dose: float) -> tuple[KeyFigure | None, str]:
    diameter, contrast = LESIONS[1]
    now, then = (found.measured[one, dose].detectability[LESIONS[1]] for one in (key, INPUT))
    if not (isinstance(now, Detectability) and isinstance(then, Detectability)):
        return None, ""
    reach = INTERVAL * now.error
    figure = KeyFigure(
        "Detectability d'", now.d_prime, "", 1, max(now.d_prime - reach, 0.0), now.d_prime + reach,
        "95 % interval by the jackknife", f"lesion of {diameter:g} mm, {contrast:g} HU; without denoising {then.d_prime:.1f}",
    )  # fmt: skip
    return (
        figure,
        f"shows a lesion of {diameter:g} mm, {contrast:g} HU with d' {now.d_prime:.1f} ({then.d_prime:.1f} without denoising)",
    )
