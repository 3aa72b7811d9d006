"""The message of a plot in a few words above it, taken from its curves alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve
from ct_cncl.pipeline.evaluation.record import INPUT, REFERENCE
from ct_cncl.pipeline.report.tables import MINUS, number_text

SAME = 0.05
"""Largest relative difference that counts as the same."""
_KEYS_SHOWN = 2
"""Largest number of methods that a finding names; the first ones are taken."""


def finding(chart: Chart) -> str:
    """The message of a plot; empty if there is no rule for it or nothing to say.

    Args:
        chart: the chart; the beginning of its key selects the rule.
    """
    rule = next((rule for start, rule in _RULES.items() if chart.key.startswith(start)), None)
    return "" if rule is None else rule(chart)


def _candidates(chart: Chart) -> list[Curve]:
    return [one for one in chart.curves if one.method not in ("", INPUT, REFERENCE)][:_KEYS_SHOWN]


def _of(chart: Chart, method: str) -> Curve | None:
    return next((one for one in chart.curves if one.method == method), None)


def _power(chart: Chart) -> str:
    """Remaining noise and its texture: standard deviation and mean frequency of the isotropic spectrum that is drawn."""
    before = _of(chart, INPUT)
    if before is None:
        return ""
    level, middle = _level(before)
    lowest = (
        f" above {before.x.min():.2f}/mm" if before.x.min() > 0 else ""
    )  # the level of the whole noise is another figure
    parts = []
    for one in _candidates(chart):
        own, mean = _level(one)
        if level > 0 and own > 0:
            parts.append(
                f"{one.name}: {100 * own / level:.0f} % of the input's noise{lowest}, {_texture(mean / middle)}"
            )
    return "; ".join(parts)


def _level(curve: Curve) -> tuple[float, float]:
    """Square root of the total power and its mean frequency, with each frequency weighted by the length of its ring."""
    power = np.clip(np.asarray(curve.y, dtype=np.float64), 0, None) * curve.x
    total = float(power.sum())
    return total**0.5, float((power * curve.x).sum() / total) if total > 0 else 0.0


def _texture(share: float) -> str:
    return "same texture" if abs(share - 1) <= SAME else "coarser" if share < 1 else "finer"


def _error_power(chart: Chart) -> str:
    before = _of(chart, INPUT)
    parts = []
    for one in _candidates(chart):
        at = one.x[int(np.argmax(one.y))]
        text = f"{one.name}: most error at {at:.2f}/mm"
        if before is not None and len(before.y) == len(one.y):
            worse = float((np.asarray(one.y) > np.asarray(before.y)).mean())
            text += (
                f", more than the input at {100 * worse:.0f} % of frequencies"
                if worse > 0
                else ", below the input everywhere"
            )
        parts.append(text)
    return "; ".join(parts)


def _bias(chart: Chart) -> str:
    parts = []
    for one in _candidates(chart):
        values = np.asarray(one.y, dtype=np.float64)
        if np.isfinite(values).any():
            worst = int(np.nanargmax(np.abs(values)))
            parts.append(f"{one.name}: at most {_signed(values[worst], 1)} HU off ({chart.categories[worst]})")
    return "; ".join(parts)


def _spread(chart: Chart) -> str:
    before = _of(chart, INPUT)
    parts = []
    for one in _candidates(chart):
        if before is None:
            continue
        share = np.asarray(one.y, dtype=np.float64) / np.asarray(before.y, dtype=np.float64)
        share = share[np.isfinite(share)]
        if share.size:
            parts.append(f"{one.name}: {100 * share.min():.0f} to {100 * share.max():.0f} % of the input's error")
    return "; ".join(parts)


def _calibration(chart: Chart) -> str:
    parts = []
    for one in _candidates(chart):
        first, last = float(one.y[0]), float(one.y[-1])
        if first > 0:
            word = "rises" if last / first > 1 + SAME else "does not rise"
            parts.append(f"{one.name}: error {word} with disagreement, {first:.1f} to {last:.1f} HU")
    return "; ".join(parts)


def _over_training(chart: Chart) -> str:
    parts = []
    for one in _candidates(chart):
        best = int(np.argmax(one.y))
        parts.append(f"{one.name}: best {one.y[best]:.2f} dB at {one.x[best]:g} {chart.x_label}")
    return "; ".join(parts)


def _loss(chart: Chart) -> str:
    return "; ".join(f"{one.name}: from {one.y[0]:.3g} to {one.y[-1]:.3g}" for one in _candidates(chart))


def _noise_over_dose(chart: Chart) -> str:
    before = _of(chart, INPUT)
    parts = []
    for one in _candidates(chart):
        if before is None or len(before.y) != len(one.y) or not (np.asarray(before.y) > 0).all():
            continue
        share = 100 * np.asarray(one.y) / np.asarray(before.y)
        parts.append(f"{one.name}: {share.min():.0f} to {share.max():.0f} % of the scan's noise is left")
    return "; ".join(parts)


def _transfer(chart: Chart) -> str:
    clean = _of(chart, REFERENCE)
    parts = []
    for one in _candidates(chart):
        own, other = _half(one), None if clean is None else _half(clean)
        if own is not None and other is not None:
            change = own / other - 1
            word = "as sharp as without noise"
            if abs(change) > SAME:
                word = f"{100 * abs(change):.0f} % {'less sharp' if change < 0 else 'sharper'} than without noise"
            parts.append(f"{one.name}: {word}")
    return "; ".join(parts)


def _half(curve: Curve) -> float | None:
    """The frequency at which a transfer function first falls below one half."""
    below = np.flatnonzero(np.asarray(curve.y) < 0.5)
    return float(curve.x[below[0]]) if below.size and below[0] > 0 else None


def _linearity(chart: Chart) -> str:
    parts = []
    for one in _candidates(chart):
        worst = int(np.argmax(np.abs(one.y)))
        parts.append(
            f"{one.name}: at most {_signed(float(one.y[worst]), 1)} HU off, at {_signed(float(one.x[worst]), 0)} HU"
        )
    return "; ".join(parts)


def _detectability(chart: Chart) -> str:
    before = _of(chart, INPUT)
    parts = []
    for one in _candidates(chart):
        if before is None:
            continue
        then = dict(zip(before.x.tolist(), before.y.tolist()))
        changes = [own - then[dose] for dose, own in zip(one.x.tolist(), one.y.tolist()) if dose in then]
        if changes:
            span = list(dict.fromkeys(_signed(change, 1) for change in (min(changes), max(changes))))
            parts.append(f"{one.name}: d' changes by {' to '.join(span)}")
    return "; ".join(parts)


def _contrast(chart: Chart) -> str:
    lines = [one for one in chart.curves if len(one.y)]
    if not lines:
        return ""
    kept, noise = [float(np.min(one.y)) for one in lines], [float(np.min(one.x)) for one in lines]
    return f"At {min(noise):.0f} % of the noise, {min(kept):.0f} to {max(kept):.0f} % of the contrast is kept"


def _signed(value: float, digits: int) -> str:
    text = number_text(value, digits)
    return text if text.startswith(MINUS) or not float(text.replace(",", "")) else f"+{text}"


_RULES: Mapping[str, Callable[[Chart], str]] = {
    "nps_error": _error_power,
    "nps": _power,
    "tissue_bias": _bias,
    "tissue_std": _spread,
    "calibration": _calibration,
    "training_psnr": _over_training,
    "training_loss": _loss,
    "noise": _noise_over_dose,
    "ttf_": _transfer,
    "linearity": _linearity,
    "detectability": _detectability,
    "contrast_kept": _contrast,
}
