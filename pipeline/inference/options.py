"""Options of ``ct-cncl denoise``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.pipeline.inference.target_dose import checked_strength, checked_target, chosen_strength
from ct_cncl.transforms.common.numbers import is_whole
from ct_cncl.transforms.series.dicom_file import COMPRESSIONS


@dataclass(frozen=True)
class DenoiseOptions:
    """The options of ``ct-cncl denoise``; see its ``--help``.

    Raises:
        ValueError: a value is outside its range.
    """

    weights: str | Path | None = None
    strength: float | str | None = None
    target_dose: float | str | None = None
    save: str | Sequence[str] | None = ()
    series: tuple[str, ...] = ()
    strict: bool = False
    derived: bool = False
    compression: str = "none"
    deidentify: bool = False
    device: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    precision: str = "fp32"
    preview: Path | None = None
    manifest: Path | None = None
    overwrite: bool = False
    progress: bool = True
    trust: bool = False

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ValueError(
                f"Expected the compression to be one of {', '.join(COMPRESSIONS)}, but got {self.compression!r}."
            )
        if self.threads is not None and not is_whole(self.threads):
            raise ValueError(f"Expected at least 1 thread, but got {self.threads!r}.")
        if self.strength is not None:
            checked_strength(self.strength)
        if self.target_dose is not None:
            checked_target(self.target_dose)
        Settings(save=self.kinds, batch_size=self.batch_size)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What to save besides the result, from a list or from names separated by commas.

        >>> DenoiseOptions(save="noise, removed").kinds
        ('noise', 'removed')
        """
        texts = self.save or () if isinstance(self.save, (list, tuple)) or not self.save else [self.save]
        return tuple(name for text in texts for part in str(text).split(",") if (name := part.strip()))

    def settings(self, trained_on: Mapping[str, Any]) -> Settings:
        """The settings with which to apply the network.

        Args:
            trained_on: what is known about the training of the weights.

        Raises:
            ValueError: both a strength and a target dose are given, or these weights cannot reach the target dose.
        """
        strength = chosen_strength(self.strength, self.target_dose, trained_on)
        return Settings(strength, self.kinds, self.batch_size)
