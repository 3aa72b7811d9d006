"""The first screen: what was evaluated, the result in one sentence, and its figures, rounded for display."""

from __future__ import annotations

from dataclasses import dataclass

from ct_cncl.pipeline.evaluation.record import Evaluation, KeyFigure
from ct_cncl.pipeline.report.tables import number_text, powers

_KINDS = {"evaluation": "Evaluation", "qa": "Phantom test", "training": "Training"}


@dataclass(frozen=True)
class Shown:
    """A figure of the first screen."""

    title: str
    value: str
    unit: str
    span: str
    """The range of values, and what the range is."""
    conditions: str


@dataclass(frozen=True)
class Headline:
    """The first screen."""

    kind: str
    title: str
    judged: str
    sentence: str
    figures: list[Shown]
    cautions: list[str]


def headline(evaluation: Evaluation) -> Headline:
    """What is shown first on the page; without a verdict, the first sentence of the summary."""
    verdict = evaluation.verdict
    candidates = [one.name for one in evaluation.methods if one.role == "candidate"]
    return Headline(
        _KINDS[evaluation.kind],
        evaluation.title,
        ", ".join(candidates) if verdict is None else verdict.judged,
        next(iter(evaluation.summary), "") if verdict is None else verdict.sentence,
        [] if verdict is None else [shown_figure(one) for one in verdict.figures],
        list(evaluation.warnings),
    )


def shown_figure(figure: KeyFigure) -> Shown:
    """Format a figure for display.

    >>> shown_figure(KeyFigure("Gain", 4.5, "dB", 2, 4.0, 5.0, "95 % interval over 7 patients", "window full", signed=True))
    Shown(title='Gain', value='+4.50', unit='dB', span='+4.00 to +5.00, 95 % interval over 7 patients', conditions='window full')
    """
    span = figure.range_of
    if figure.low is not None and figure.high is not None:
        span = f"{_text(figure.low, figure)} to {_text(figure.high, figure)}, {span}"
    return Shown(figure.title, _text(figure.value, figure), powers(figure.unit), span, powers(figure.conditions))


def _text(value: float, figure: KeyFigure) -> str:
    plus = "+" if figure.signed and value > 0 else ""
    return plus + number_text(value, figure.digits)
