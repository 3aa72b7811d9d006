"""What can be derived from a scan and how it was done; the UIDs and series numbers that follow from it."""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import dataclass
from datetime import datetime

from pydicom.uid import UID

_NAMESPACE = uuid.UUID("6f6b1d5e-8f0c-5a55-9a0b-1f3a0c6f2a41")
_SERIES_STEP = 1000
_MADE_UP = (1_000_000, 2_147_482)
"""Thousands of series numbers that are made from a UID: below 2**31, above what scanners count to."""
SCHEME = "99CTCNCL"
DENOISED_CODE, SIMULATED_CODE, NOISE_MAP_CODE = "CNCL", "LOWDOSE", "NOISEMAP"
"""Derivation codes of our scheme: of denoised scans, of simulated low-dose scans, of noise that was measured."""
IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")
"""Implementation Class UID in the file meta information of what is derived (PS3.10, 7.1)."""
PART_MARK = "#"
"""Between a SeriesInstanceUID and the number of a part, where a series was split."""


@dataclass(frozen=True)
class Kind:
    """One sort of result.

    Attributes:
        name: as users ask for it.
        number: SeriesNumber is the source's times 1000 plus this.
        label: in SeriesDescription.
        image_type: added to Image Type; empty where the result is a CT image like its source.
        window: centre and width in HU at which it is shown; None keeps the source's.
        step: HU of a stored step where it is a map: fine enough for what it shows; None takes the source's slope.
    """

    name: str
    number: int
    label: str
    image_type: str = ""
    window: tuple[float, float] | None = None
    step: float | None = None

    @property
    def is_map(self) -> bool:
        """Stored in signed 16 bits, intercept 0, instead of as the source."""
        return bool(self.image_type)


REMOVED = "removed"
"""What the result lacks of its source, in the source's own steps: source = result + removed, to the bit."""
KINDS = {
    kind.name: kind
    for kind in (
        Kind("denoised", 1, "denoised"),
        Kind("noise", 2, "noise estimate, HU", "NOISE", (0.0, 100.0), 0.125),
        Kind("content", 3, "content estimate, HU", "CONTENT", None, 1.0),
        Kind("disagreement", 4, "disagreement of the estimates, HU", "DISAGREEMENT", (1.5, 3.0), 0.0625),
        Kind(REMOVED, 5, "removed, source - result, HU", "REMOVED", (0.0, 100.0)),
    )
}
"""What denoising can write, by name."""
LOW_DOSE = Kind("lowdose", 6, "simulated low dose")
NOISE_MAP = Kind("noise_map", 7, "noise, standard deviation, HU", "NOISE_MAP", (10.0, 20.0), 0.0625)
ALL_KINDS = KINDS | {kind.name: kind for kind in (LOW_DOSE, NOISE_MAP)}
"""What can be written, by name."""


@dataclass(frozen=True)
class Derivation:
    """What was done by a network that denoises.

    Attributes:
        weights: SHA-256 of the weights, hexadecimal.
        version: of this package.
        strength: 1 is the network's result, 0 the source; above 1 more is removed than the network does.
        warnings: to be recorded in the result.
        precision: of the network's arithmetic, "fp32" or "bf16".
        compression: of the result, as users ask for it.
        content: digest of all that the source series holds, as :func:`ct_cncl.transforms.series.content.content_digest` gives it.
        made: when, with a time zone; the one thing that may differ between two runs. None states no time.
    """

    weights: str
    version: str
    strength: float = 1.0
    warnings: tuple[str, ...] = ()
    precision: str = "fp32"
    compression: str = "none"
    content: str = ""
    made: datetime | None = None

    def describe(self, kind: Kind) -> str:
        """One line for DerivationDescription (at most 1024 characters)."""
        text = f"ct-cncl {self.version}: {kind.label}; CNCL, weights sha256 {self.weights[:16]}, strength {self.strength:g}"
        return "; ".join([", ".join([text, *self.unusual_precision]), *self.warnings])[:1024]

    @property
    def unusual_precision(self) -> tuple[str, ...]:
        """The precision where it is not fp32."""
        return () if self.precision == "fp32" else (self.precision,)

    def label(self, kind: Kind) -> str:
        """A few words for SeriesDescription."""
        strength = () if self.strength == 1 else (f"{self.strength:.3g}",)
        return " ".join((kind.label, "CNCL", *strength, *self.unusual_precision))

    @property
    def code(self) -> tuple[str, str]:
        """Derivation code of our scheme, and its meaning."""
        return DENOISED_CODE, "Noise reduction by content-noise complementary learning"

    @property
    def software(self) -> list[str]:
        """Versions, for the contributing equipment."""
        return [self.version, f"weights {self.weights[:32]}"]

    @property
    def named(self) -> tuple[object, ...]:
        """Everything that can change the object, besides its source and its kind."""
        return (
            self.weights,
            self.version,
            float(self.strength),
            self.precision,
            self.compression,
            self.content,
            self.warnings,
        )

    def number(self, kind: Kind) -> int | None:
        """Below 1000, in SeriesNumber; None where this would not tell all results apart."""
        per_cent = self.strength * 100
        plain = self.strength == 1 or (1 <= per_cent < 100 and abs(per_cent - round(per_cent)) < 1e-9)
        if not plain or self.unusual_precision:
            return None
        return round(per_cent) % 100 * 10 + kind.number

    def numbered(self, source: int, series_uid: str) -> str:
        """What a made-up series number depends on."""
        return f"{source}|{series_uid}|{float(self.strength)}|{self.precision}"


@dataclass(frozen=True)
class Processing:
    """What was done that is not denoising: a lower dose simulated, or noise measured.

    Attributes:
        code: Derivation code of our scheme, and its meaning.
        what: one line, of what the result holds; that of a simulated scan says "simulated".
        short: a few words for SeriesDescription.
        settings: SHA-256 of everything that the result depends on besides its source, hexadecimal.
        version: of this package.
        warnings: to be recorded in the result.
        compression: as in :class:`Derivation`.
        content: as there.
        made: as there.
    """

    code: tuple[str, str]
    what: str
    short: str
    settings: str
    version: str
    warnings: tuple[str, ...] = ()
    compression: str = "none"
    content: str = ""
    made: datetime | None = None

    def describe(self, kind: Kind) -> str:
        """One line for DerivationDescription (at most 1024 characters)."""
        text = f"ct-cncl {self.version}: {kind.label}; {self.what}, settings sha256 {self.settings[:16]}"
        return "; ".join([text, *self.warnings])[:1024]

    def label(self, kind: Kind) -> str:
        """A few words for SeriesDescription."""
        return f"{kind.label} {self.short}".strip()

    @property
    def software(self) -> list[str]:
        """Versions, for the contributing equipment."""
        return [self.version, f"settings {self.settings[:32]}"]

    @property
    def named(self) -> tuple[object, ...]:
        """Everything that can change the object, besides its source and its kind."""
        return (self.code[0], self.settings, self.version, self.compression, self.content, self.warnings)

    def numbered(self, source: int, series_uid: str) -> str:
        """What a made-up series number depends on."""
        return f"{source}|{series_uid}|{self.settings}"


def derived_uid(uid: str, derivation: Derivation | Processing, kind: Kind) -> UID:
    """The UID of what is derived from ``uid``: a function of everything that can change the object but the time of its making.

    >>> first = derived_uid("1.2.3", Derivation("ab", "1"), KINDS["denoised"])
    >>> first == derived_uid("1.2.3", Derivation("ab", "1", made=datetime(2026, 1, 1)), KINDS["denoised"])
    True
    >>> first == derived_uid("1.2.3", Derivation("ab", "2"), KINDS["denoised"])
    False
    """
    named = (uid, kind.name, *derivation.named)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(named)).int}")


def result_series_number(source: object, series_uid: str, derivation: Derivation | Processing, kind: Kind) -> int:
    """The SeriesNumber of a result: another one for another source, kind, strength and precision, or settings.

    Of a denoised scan the source's times 1000 plus the kind's, and ten times the strength in per cent below 1. Where the source has no number
    that allows it, or more than this has to be told apart, the thousands are made from the SeriesInstanceUID and lie above a
    million.

    >>> result_series_number(7, "1.2", Derivation("ab", "1"), KINDS["denoised"])
    7001
    >>> result_series_number(7, "1.2", Derivation("ab", "1", 0.5), KINDS["noise"])
    7502
    >>> 10**9 < result_series_number(None, "1.2", Derivation("ab", "1"), KINDS["denoised"]) < 2**31
    True
    """
    try:
        number = int(str(source))
    except ValueError:  # none, or one that is no number
        number = 0
    if 0 < number < _MADE_UP[0] and PART_MARK not in series_uid:
        own = derivation.number(kind) if isinstance(derivation, Derivation) else None
        if own is not None:  # doses, seeds and realizations are not told apart by anything as short
            return number * _SERIES_STEP + own
    name = derivation.numbered(number, series_uid)
    made_up = _MADE_UP[0] + zlib.crc32(name.encode()) % (_MADE_UP[1] - _MADE_UP[0])
    return made_up * _SERIES_STEP + kind.number
