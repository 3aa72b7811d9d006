"""Rules: what to do with a series, depending on its headers. The first match wins."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.inference.target_dose import CLEAN, STRENGTHS
from ct_cncl.pipeline.node.facts import Facts
from ct_cncl.pipeline.node.lined_yaml import Section, choice, flag, list_of, number, text
from ct_cncl.pipeline.node.origin import ORIGINS
from ct_cncl.transforms.series.derivation import KINDS

_TEXTS = ("ae", "modality", "manufacturer", "kernel", "body_part", "series_description", "study_description")
_NUMBERS = ("kvp", "slice_thickness")
_RANGE = re.compile(r"\s*(>=|<=|>|<|=)?\s*([0-9.]+)\s*(?:(?:-|to)\s*([0-9.]+))?\s*")
_SAVED = tuple(name for name in KINDS if name != "denoised")
"""Further results that a rule can ask for."""
PRECISIONS = ("fp32", "bf16", "auto")


@dataclass(frozen=True)
class Condition:
    """One line of ``match``.

    Attributes:
        name: the property of a series that the condition is about.
        wanted: patterns (``*`` and ``?``), ranges, or words. One of them must fit; for ``image_type``, all must.
    """

    name: str
    wanted: tuple[str, ...]

    def fits(self, facts: Facts, ae: str) -> bool:
        """Whether the facts meet the condition. A property that the header does not state never does."""
        if self.name == "image_type":
            return all(word.upper() in facts.image_type for word in self.wanted)
        value = ae if self.name == "ae" else getattr(facts, self.name)
        if self.name in _NUMBERS:
            return value is not None and any(_within(float(value), wanted) for wanted in self.wanted)
        return bool(value) and any(fnmatch.fnmatchcase(str(value).lower(), wanted.lower()) for wanted in self.wanted)

    def says(self, facts: Facts, ae: str) -> str:
        """What was wanted and what the header says, for people."""
        value = ae if self.name == "ae" else getattr(facts, self.name)
        shown = "\\".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
        return f"{self.name} is {shown or 'not stated'}, wanted {' or '.join(self.wanted)}"


@dataclass(frozen=True)
class Action:
    """What to do with a series.

    Attributes:
        do: "denoise", "ignore" (store, and remove after ``keep.hours``) or "refuse" (answer with Refused: Not Authorized).
        weights: a file; None for the bundle's own weights.
        strength: 0 to 1, or a name.
        target_dose: 1 or more, or "clean"; it takes the place of ``strength``. None to use ``strength``.
        precision: "fp32", "bf16" or "auto".
        save: further results to make.
        send: names of destinations.
        shadow: denoise and keep the result, but send nothing.
        derived: the rule accepts images that are not originals.
    """

    do: str = "denoise"
    weights: str | None = None
    strength: float | str = 1.0
    target_dose: float | str | None = None
    precision: str = "fp32"
    save: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    shadow: bool = False
    derived: bool = False

    def plain(self) -> dict[str, Any]:
        """The action as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        origins: those of :data:`~ct_cncl.pipeline.node.origin.ORIGINS` that the rule is for.
        line: where the rule begins in the configuration.
    """

    name: str
    conditions: tuple[Condition, ...]
    origins: tuple[str, ...]
    action: Action
    line: int = 0


@dataclass(frozen=True)
class Decision:
    """What to do with a series, and why.

    Attributes:
        rule: name of the rule that matched; empty if none did.
        reasons: one line for each rule that was considered.
    """

    action: Action
    rule: str
    reasons: tuple[str, ...]


def decide(rules: Sequence[Rule], facts: Facts, ae: str) -> Decision:
    """Find the first rule that matches. If none does, the series is ignored.

    >>> rule = Rule("all", (), ("original",), Action())
    >>> decide([rule], Facts(origin="localizer", origin_says="ImageType LOCALIZER"), "CT1").action.do
    'ignore'
    """
    reasons = []
    for rule in rules:
        if facts.origin not in rule.origins:
            allowed = " or ".join(rule.origins)
            reasons.append(f"{rule.name}: no, it is for {allowed}, and this is {facts.origin} ({facts.origin_says})")
            continue
        missed = [condition for condition in rule.conditions if not condition.fits(facts, ae)]
        if missed:
            reasons.append(f"{rule.name}: no, {missed[0].says(facts, ae)}")
            continue
        met = "; ".join(condition.says(facts, ae) for condition in rule.conditions) or "it matches everything"
        reasons.append(f"{rule.name}: yes, {met}")
        return Decision(rule.action, rule.name, tuple(reasons))
    return Decision(Action(do="ignore"), "", (*reasons, "no rule matches: ignored"))


def read_rule(section: Section, number_of_rule: int, destinations: Sequence[str]) -> Rule:
    """Read a rule from its YAML section.

    Raises:
        NodeError: the rule is invalid; names the line and key.
    """
    line = section.line
    name = section.take("name", text, f"rule {number_of_rule}")
    conditions: list[Condition] = []
    origins: tuple[str, ...] = ("original",)
    match = section.section("match")
    if match is not None:
        conditions += [Condition(key, match.take(key, list_of(text), ())) for key in _TEXTS]
        conditions += [Condition(key, match.take(key, list_of(_range), ())) for key in _NUMBERS]
        conditions.append(Condition("image_type", match.take("image_type", list_of(text), ())))
        origins = match.take("origin", list_of(choice(*ORIGINS)), ("original",))
        match.close()
    action = _action(section, destinations, derived=origins != ("original",))
    section.close()
    return Rule(name, tuple(condition for condition in conditions if condition.wanted), origins, action, line)


def _action(section: Section, destinations: Sequence[str], *, derived: bool) -> Action:
    do = section.take("do", choice("denoise", "ignore", "refuse"), "denoise")
    if do != "denoise":
        return Action(do=do)
    target = section.take("target_dose", _target_dose, None)
    line = section.line_of("strength")
    strength = section.take("strength", _strength, None)
    if strength is not None and target is not None:
        raise section.error("strength", "a strength or a target_dose", "both", line)
    shadow = section.take("shadow", flag, False)
    line = section.line_of("send")
    send = section.take("send", list_of(choice(*destinations)), ())
    if not send and not shadow:
        raise section.error("send", "destinations to send to (or shadow: true, to send nothing)", "none", line)
    return Action(
        weights=section.take("weights", _existing(section.file.parent), None),
        strength=1.0 if strength is None else strength,
        target_dose=target,
        precision=section.take("precision", choice(*PRECISIONS), "fp32"),
        save=section.take("save", list_of(choice(*_SAVED)), ()),
        send=tuple(dict.fromkeys(send)),
        shadow=shadow,
        derived=derived,
    )


def _target_dose(value: Any) -> float | str:
    return CLEAN if value == CLEAN else number(1)(value)


def _strength(value: Any) -> float | str:
    return str(value) if value in STRENGTHS else number(0, 1)(value)


def _existing(folder: Path) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        path = folder / text(value)
        if not path.is_file():
            raise ValueError("a weights file that exists")
        return str(path.resolve())

    return convert


def _range(value: Any) -> str:
    match = None if isinstance(value, bool) else _RANGE.fullmatch(str(value))
    try:
        if match is None or (match[1] and match[3]):
            raise ValueError
        float(match[2]), float(match[3] or 0)
    except ValueError:
        raise ValueError("a number or a range (120, 100-120, >=2)") from None
    return str(value)


def _within(value: float, wanted: str) -> bool:
    match = _RANGE.fullmatch(wanted)
    assert match is not None
    low = float(match[2])
    if match[3]:
        return low <= value <= float(match[3])
    compare = {">=": value >= low, "<=": value <= low, ">": value > low, "<": value < low}
    return compare.get(match[1] or "=", abs(value - low) < 1e-6)
