"""Kinds of results, records of how they were derived, and the UIDs and series numbers that follow from both."""

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
"""Range of the thousands of a SeriesNumber made from a UID: above what scanners count to, and small enough to stay below 2**31."""
SCHEME = "99CTCNCL"
DENOISED_CODE, SIMULATED_CODE, NOISE_MAP_CODE = "CNCL", "LOWDOSE", "NOISEMAP"
"""Derivation codes in our scheme, for denoised scans, simulated low-dose scans and maps of measured noise."""
IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")
"""Implementation Class UID in the file meta information of derived images (PS3.10, 7.1)."""
PART_MARK = "#"
"""Separator between a SeriesInstanceUID and the number of the part, for a series that was split."""


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        name: the name by which users choose it.
        number: last digit of the SeriesNumber, see :func:`result_series_number`.
        label: text in SeriesDescription.
        image_type: value added to Image Type; empty if the result is a CT image like its source.
        window: default window, centre and width in HU; None keeps the source's.
        step: for a map, HU per stored step, fine enough for what the map shows; None takes the source's slope.
    """

    name: str
    number: int
    label: str
    image_type: str = ""
    window: tuple[float, float] | None = None
    step: float | None = None

    @property
    def is_map(self) -> bool:
        """Whether it is stored as a map, in signed 16 bits with intercept 0, instead of in the source's format."""
        return bool(self.image_type)


REMOVED = "removed"
"""The source minus the result, in the source's own steps, so that source = result + removed exactly."""
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
"""Kinds of results that denoising can write, by name."""
LOW_DOSE = Kind("lowdose", 6, "simulated low dose")
NOISE_MAP = Kind("noise_map", 7, "noise, standard deviation, HU", "NOISE_MAP", (10.0, 20.0), 0.0625)
ALL_KINDS = KINDS | {kind.name: kind for kind in (LOW_DOSE, NOISE_MAP)}
"""All kinds of results, by name."""


@dataclass(frozen=True)
class Derivation:
    """Record of denoising by a network.

    Attributes:
        weights: SHA-256 of the weights, in hexadecimal.
        version: version of this package.
        strength: 0 returns the source, 1 the network's result; above 1, more is removed than the network estimates.
        warnings: warnings to be recorded in the result.
        precision: precision of the network's arithmetic, "fp32" or "bf16".
        compression: compression of the result, a name in :data:`ct_cncl.transforms.series.dicom_file.COMPRESSIONS`.
        content: digest of the source series, from :func:`ct_cncl.transforms.series.content.content_digest`.
        made: time of the derivation, with a time zone; the only part that may differ between two equal runs. None states no time.
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
        """The precision unless it is fp32."""
        return () if self.precision == "fp32" else (self.precision,)

    def label(self, kind: Kind) -> str:
        """A few words for SeriesDescription."""
        strength = () if self.strength == 1 else (f"{self.strength:.3g}",)
        return " ".join((kind.label, "CNCL", *strength, *self.unusual_precision))

    @property
    def code(self) -> tuple[str, str]:
        """Derivation code in our scheme, and its meaning."""
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
        """The last three digits of the SeriesNumber; None if three digits cannot distinguish all results."""
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
    """Record of a derivation other than denoising: the simulation of a lower dose, or the measurement of noise.

    Attributes:
        code: derivation code in our scheme, and its meaning.
        what: one line about what the result holds; for a simulated scan it must contain "simulated".
        short: a few words for SeriesDescription.
        settings: SHA-256 of everything but the source that the result depends on, in hexadecimal.
        version: version of this package.
        warnings: warnings to be recorded in the result.
        compression: as in :class:`Derivation`.
        content: as in :class:`Derivation`.
        made: as in :class:`Derivation`.
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
    """The UID of an object derived from ``uid``; it depends on everything that can change the object except the time.

    >>> first = derived_uid("1.2.3", Derivation("ab", "1"), KINDS["denoised"])
    >>> first == derived_uid("1.2.3", Derivation("ab", "1", made=datetime(2026, 1, 1)), KINDS["denoised"])
    True
    >>> first == derived_uid("1.2.3", Derivation("ab", "2"), KINDS["denoised"])
    False
    """
    named = (uid, kind.name, *derivation.named)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(named)).int}")


def result_series_number(source: object, series_uid: str, derivation: Derivation | Processing, kind: Kind) -> int:
    """The SeriesNumber of a result; it differs between sources, kinds, strengths, precisions and settings.

    For a denoised scan it is the source's number times 1000, plus ten times the strength in per cent if the strength is below 1, plus the
    kind's number. If the source has no usable number, or three digits cannot distinguish the results, the thousands are derived from
    the SeriesInstanceUID and are at least a million.

    >>> result_series_number(7, "1.2", Derivation("ab", "1"), KINDS["denoised"])
    7001
    >>> result_series_number(7, "1.2", Derivation("ab", "1", 0.5), KINDS["noise"])
    7502
    >>> 10**9 < result_series_number(None, "1.2", Derivation("ab", "1"), KINDS["denoised"]) < 2**31
    True
    """
    try:
        number = int(str(source))
    except ValueError:  # missing, or not a number
        number = 0
    if 0 < number < _MADE_UP[0] and PART_MARK not in series_uid:
        own = derivation.number(kind) if isinstance(derivation, Derivation) else None
        if own is not None:  # three digits could not distinguish doses, seeds and realizations
            return number * _SERIES_STEP + own
    name = derivation.numbered(number, series_uid)
    made_up = _MADE_UP[0] + zlib.crc32(name.encode()) % (_MADE_UP[1] - _MADE_UP[0])
    return made_up * _SERIES_STEP + kind.number
