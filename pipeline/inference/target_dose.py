"""Converting a target dose to a strength, so that a network trained for one target dose serves every other.

Let the input y contain the noise n of its dose, and the reference at T times that dose a part of this noise, as with real pairs and
inserted noise: y = reference + further independent noise with the same spectrum. Then E[n_T | n] = n / T, and with the estimate x^ of
the noise-free image the best estimate of the reference is

    E[reference_T | y] = y - (1 - 1/T) (y - x^)

A network trained for T0 removes (1 - 1/T0) (y - x^). What it removes, multiplied by

    s(T) = (1 - 1/T) / (1 - 1/T0)

is therefore what a network for T would remove. See docs/explanations/physics.md, where 1/T is the share of the noise that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLEAN = "clean"
"""The target without noise."""
STRENGTHS = {"low": 0.5, "medium": 0.75, "high": 1.0}
"""Named strengths. None exceeds 1, so that none adds more false structure than the network's own result has."""
MOST = 2.0
"""Largest strength. Beyond it, what the network takes for noise would outweigh the image."""


def strength_of_target(target_dose: float | str, *, input_dose: float) -> float:
    """The strength at which a network gives the image at a multiple of the input's dose.

    Args:
        target_dose: T, 1 or more; "clean" for no noise at all.
        input_dose: dose of the training inputs relative to their references, 1 / T0, from 0 to below 1.

    Raises:
        ValueError: a value is outside its range.

    >>> [round(strength_of_target(T, input_dose=0.25), 3) for T in (1, 2, 4, 10, "clean")]
    [0.0, 0.667, 1.0, 1.2, 1.333]
    """
    if not 0 <= input_dose < 1:
        raise ValueError(f"Expected an input dose from 0 to below 1, but got {input_dose}.")
    return (1 - 1 / checked_target(target_dose)) / (1 - input_dose)


def checked_target(target_dose: float | str) -> float:
    """A target dose as a number; "clean" is infinite.

    Raises:
        ValueError: the target dose is neither a number of 1 or more nor "clean".
    """
    try:
        target = math.inf if target_dose == CLEAN else float(target_dose)
    except (TypeError, ValueError):
        target = math.nan
    if not target >= 1:
        raise ValueError(
            f"Expected a target dose of 1 or more (2 means as if taken at twice the dose) or {CLEAN}, but got {target_dose}."
        )
    return target


def checked_strength(strength: float | str) -> float:
    """A strength as a number.

    Raises:
        ValueError: the strength is neither a number from 0 to 1 nor a name in :data:`STRENGTHS`.
    """
    try:
        number = STRENGTHS[strength] if isinstance(strength, str) and strength in STRENGTHS else float(strength)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"Expected a strength from 0 to 1 or {', '.join(STRENGTHS)}, but got {strength}.")
    return number


def chosen_strength(
    strength: float | str | None, target_dose: float | str | None, trained_on: Mapping[str, Any]
) -> float:
    """The strength with which to apply a network; 1 by default.

    Args:
        strength: 0 to 1, or a name; None if not given.
        target_dose: 1 or more, or "clean"; None if not given.
        trained_on: what is known about the training of the weights.

    Raises:
        ValueError: both are given, a value is outside its range, the weights do not state the dose that they were trained for,
            or they cannot reach the target dose.
    """
    if target_dose is None:
        return 1.0 if strength is None else checked_strength(strength)
    if strength is not None:
        raise ValueError(
            f"Expected a strength or a target dose, but got both ({strength} and {target_dose}). Omit one."
        )
    found = strength_of_target(target_dose, input_dose=_input_dose(trained_on, target_dose))
    if found > MOST:
        raise ValueError(
            f"Expected a target dose that these weights can reach, but {target_dose} would take {found:.2f} times their correction, and "
            f"{MOST:g} times is the maximum. Use a lower target dose."
        )
    return found


def _input_dose(trained_on: Mapping[str, Any], target_dose: float | str) -> float:
    from ct_cncl.pipeline.weights.domain import (
        INPUT_DOSE,
    )  # here, since it imports torch, which strengths alone do not need

    stated = trained_on.get(INPUT_DOSE)
    try:
        low, high = map(float, stated or ())
    except (TypeError, ValueError):
        raise ValueError(
            f"Expected weights that state the dose they were trained for, to reach target dose {target_dose}, but these do not. Use "
            f'--strength, or write "{INPUT_DOSE}": [0.25, 0.25] (for quarter dose) into trained_on.json next to the weights.'
        ) from None
    if not (0 <= low < 1 and high - low <= 1e-6):
        raise ValueError(
            f"Expected weights that were trained for one dose, to reach target dose {target_dose}, but these were trained on inputs at "
            f"{low:g} to {high:g} of their references' doses. Use --strength."
        )
    return low


def strength_of_config(strength: float | str | None, target_dose: float | str | None, checkpoint: str | None) -> float:
    """The same as :func:`chosen_strength`, for a bundle's inference.json. The training of the weights is read from a file next to them."""
    from ct_cncl.pipeline.weights.load import described_training

    known = described_training(Path(checkpoint)) if checkpoint and target_dose is not None else {}
    return chosen_strength(strength, target_dose, known)
