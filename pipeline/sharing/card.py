"""The model card of weights other than the shipped ones: facts from the run, and places that the author must fill in."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.common.numbers import counted
from ct_cncl.transforms.dataset.datalist import read_datalist

CARD = "docs/README.md"
LICENCE_OF_DATA = "docs/data_license.txt"
TO_WRITE = "TO BE WRITTEN"
"""Marks each place of a card that only the author can fill in."""
_LOSSES = {
    "pixel": "L1 (or squared error) of content, noise and result",
    "adversarial": "adversary",
    "perceptual": "perceptual",
    "texture": "texture",
}
_SCORES = ("psnr", "ssim", "rmse")


@dataclass(frozen=True)
class Texts:
    """Texts by the author of the weights.

    Attributes:
        card: file with the model card; None for a stub.
        authors: who trained the weights; empty if not given.
        data_source: data on which they were trained; empty if not given.
        licence: licence of the data and the weights, as a file or as text; empty if not given.
    """

    card: Path | None = None
    authors: str = ""
    data_source: str = ""
    licence: str = ""

    def check(self) -> None:
        """Refuse a card that cannot be read.

        Raises:
            DataError: the file does not exist.
        """
        if self.card is not None and not self.card.is_file():
            raise DataError(f"Expected a model card in {self.card}, but there is no such file. Name a Markdown file.")

    def metadata(self) -> dict[str, Any]:
        """Entries of configs/metadata.json that differ from those of the shipped weights."""
        authors = self.authors or f"{TO_WRITE}: who trained these weights"
        return {
            "authors": authors,
            "copyright": f"Copyright (c) {self.authors}" if self.authors else f"{TO_WRITE}: whose weights these are",
            "data_source": self.data_source or f"{TO_WRITE}: which scans, and from where",
            "eval_metrics": {},
        }

    def licence_text(self) -> str:
        """Contents of docs/data_license.txt."""
        if not self.licence:
            return f"{TO_WRITE}: under which licences the training data came, and under which these weights go.\n"
        path = Path(self.licence)
        with suppress(OSError):  # a text too long for a file name is not a file
            if path.is_file():
                return path.read_text(encoding="utf-8")
        return f"{self.licence.rstrip()}\n"


def stub_card(weights: Path, metadata: Mapping[str, Any]) -> str:
    """A model card with all sections that the zoo requires: facts from the run, and marked places to be filled in.

    Args:
        weights: a run's checkpoint.
        metadata: metadata of the bundle.
    """
    run = weights.parent
    config = _json(run / "config.json")
    return "\n\n".join(
        [
            "# Model Overview",
            (
                f"Weights of `{metadata['weights'].get('variant') or 'an own network'}` for content-noise complementary learning (CNCL), trained with "
                f"ct-cncl. They are not the weights that ct-cncl ships. Research only; not a medical device.\n\n{TO_WRITE}: what they are for."
            ),
            "## Data",
            f"{metadata['data_source']}\n\n" + _data(config, metadata.get("trained_on") or {}),
            "## Training configuration",
            _training(config, _json(run / "run.json")),
            "### Input",
            "A CT slice, (HU + 1024) / 4096, one channel for each slice that the network sees.",
            "### Output",
            "The denoised slice, (HU + 1024) / 4096, one channel.",
            "## Performance",
            _performance(run / "metrics.csv")
            + f"\n\n{TO_WRITE}: scores on patients that neither training nor validation saw, as "
            "`ct-cncl evaluate` and `ct-cncl qa` give them.",
            "## Bundle Commands",
            (
                "    ct-cncl denoise SCAN --weights models/model.pt --out denoised\n"
                "    python -m monai.bundle run --config_file configs/inference.json --dataset_dir SCANS --output_dir OUT"
            ),
            "## Limitations",
            f"{TO_WRITE}: which scanners, doses, body parts and kernels they were not trained on.",
            "## Citation",
            f"{TO_WRITE}: how to cite these weights.",
            "## References",
            "\n".join(f"- {text}" for text in metadata["references"]),
            "## License",
            "Code: LICENSE. Data and weights: docs/data_license.txt.\n",
        ]
    )


def _data(config: Mapping[str, Any], trained_on: Mapping[str, Any]) -> str:
    lines = []
    folder = config.get("dataset_dir")
    with suppress(DataError, OSError):
        content = read_datalist(folder) if isinstance(folder, str) else {}
        for split in ("training", "validation"):
            entries = content.get(split) or []
            people = len({entry["patient"] for entry in entries})
            slices = sum(entry["shape"][2] for entry in entries)
            doses = sorted({entry["dose_fraction"] for entry in entries if entry.get("dose_fraction") is not None})
            dose = f", dose fraction {', '.join(f'{each:g}' for each in doses)}" if doses else ""
            lines.append(
                f"- {split}: {counted(len(entries), 'volume')} of {counted(people, 'patient')}, {counted(slices, 'slice')}{dose}"
            )
    if trained_on:
        lines.append(f"- measured in the training inputs: {json.dumps(trained_on)}")
    return "\n".join(lines) or f"{TO_WRITE}: how many patients and slices; the run's data set is not here any more."


def _training(config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    names = ("max_epochs", "batch_size", "learning_rate", "seed", "precision", "context_slices")
    lines = [f"- {name}: {config[name]}" for name in names if name in config]
    losses = [
        words
        for key, words in _LOSSES.items()
        if isinstance(config.get(f"{key}_loss", config.get(key)), dict)
        and config.get(f"{key}_loss", config.get(key)).get("weight", 1) not in (0, 0.0)
    ]
    if losses:
        lines.append(f"- losses: {', '.join(losses)}")
    lines += [f"- {key}: {record[key]}" for key in ("version", "git_revision") if isinstance(record.get(key), str)]
    return "\n".join(lines) or f"{TO_WRITE}: how they were trained; no run lies beside the checkpoint."


def _performance(metrics: Path) -> str:
    try:
        rows = list(csv.DictReader(metrics.open(encoding="utf-8")))
        scored = [row for row in rows if row.get("psnr")]
        best = max(scored, key=lambda row: float(row["psnr"]))
    except (OSError, ValueError, csv.Error):
        return f"{TO_WRITE}: scores; the run's metrics.csv is not here."
    data_range = best.get("data_range_hu") or "4096"
    figures = [
        f"{name.upper()} {best[name]} (input {best[f'{name}_input']})"
        for name in _SCORES
        if best.get(name) and best.get(f"{name}_input")
    ]
    return (
        f"On the run's own validation split, epoch {best['epoch']}, data range {data_range} HU: {', '.join(figures)}."
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def places_to_write(bundle: Path) -> int:
    """Number of marked places in a bundle's card, licence and metadata."""
    files = (bundle / CARD, bundle / LICENCE_OF_DATA, bundle / "configs" / "metadata.json")
    return sum(path.read_text(encoding="utf-8", errors="replace").count(TO_WRITE) for path in files if path.is_file())


def places_in_archive(archive: Path) -> int:
    """Number of marked places in the same files of a packed bundle."""
    with zipfile.ZipFile(archive) as packed:
        files = (CARD, LICENCE_OF_DATA, "configs/metadata.json")
        names = [name for name in packed.namelist() if name.split("/", 1)[-1] in files]
        return sum(packed.read(name).decode("utf-8", "replace").count(TO_WRITE) for name in names)


def is_card_of(card: Path, other: Path) -> bool:
    """Whether ``card`` holds most of the text of ``other``: a slightly edited card still describes those weights."""
    if not card.is_file() or not other.is_file():
        return False
    own, shipped = (
        {line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if len(line) > 60}
        for path in (card, other)
    )
    return bool(shipped) and len(own & shipped) > len(shipped) / 2


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same numbers; they are not unpickled for this."""
    try:
        found = [_stored(path) for path in (one, other)]
    except (OSError, zipfile.BadZipFile):
        return False
    return found[0] == found[1]


def _stored(path: Path) -> list[tuple[int, int]]:
    with zipfile.ZipFile(path) as archive:
        return sorted((one.file_size, one.CRC) for one in archive.infolist() if "/data/" in one.filename)
