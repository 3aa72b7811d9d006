"""What ``ct-cncl denoise`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ct_cncl.pipeline.inference.streaming import Settings
from ct_cncl.transforms.series.dicom_file import COMPRESSIONS


@dataclass(frozen=True)
class DenoiseOptions:
    """What ``ct-cncl denoise`` is asked for beside source and output; see its ``--help``."""

    weights: str | Path | None = None
    strength: float = 1.0
    save: tuple[str, ...] = ()
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

    def settings(self) -> Settings:
        """How the network is applied.

        Raises:
            ValueError: a value outside its range.
        """
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"Expected a compression out of {', '.join(COMPRESSIONS)}, but got {self.compression!r}.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"Expected at least 1 thread, but got {self.threads}.")
        return Settings(self.strength, self.save, self.batch_size)
