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
    """What ``ct-cncl denoise`` is asked for besides source and output; see its ``--help``.

    Raises:
        ValueError: a value outside its range.
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
            raise ValueError(f"Expected a compression out of {', '.join(COMPRESSIONS)}, but got {self.compression!r}.")
        if self.threads is not None and not is_whole(self.threads):
            raise ValueError(f"Expected at least 1 thread, but got {self.threads!r}.")
        if self.strength is not None:
            checked_strength(self.strength)
        if self.target_dose is not None:
            checked_target(self.target_dose)
        Settings(save=self.kinds, batch_size=self.batch_size)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is saved besides the result; one name is a list of one.

        >>> DenoiseOptions(save="noise, removed").kinds
        ('noise', 'removed')
        """
        texts = self.save or () if isinstance(self.save, (list, tuple)) or not self.save else [self.save]
        return tuple(name for text in texts for part in str(text).split(",") if (name := part.strip()))

    def settings(self, trained_on: Mapping[str, Any]) -> Settings:
        """How the network is applied.

        Args:
            trained_on: what is known of the weights' training.

        Raises:
            ValueError: strength and target dose, or a target dose that these weights do not reach.
        """
        strength = chosen_strength(self.strength, self.target_dose, trained_on)
        return Settings(strength, self.kinds, self.batch_size)
