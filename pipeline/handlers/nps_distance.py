"""Distance of the noise power spectra of result and branches from the reference's, computed during evaluation."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from ct_cncl.pipeline.metrics.nps_distance import MIN_PATCHES, PATCH, nps_distance, patches_at, uniform_patches
from ct_cncl.transforms.anatomy.regions import noise_power_spectrum
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.patches.slice_pairs import SlicePairs

DISTANCES = {
    "nps_distance": "pred",
    "nps_distance_content": "content",
    "nps_distance_denoised": "denoised",
    "nps_distance_input": "image",
}
"""What is written, and of which of the evaluator's images."""

SPECTRUM_KIND = "radial"
"""What the distances are of, written next to them; files without it are of before 24 November 2026, by single frequencies."""

_NOISE_FREE = "the reference is a phantom without noise"
_NO_TISSUE = f"no volume has {MIN_PATCHES} calm soft-tissue patches of {PATCH} x {PATCH} pixels"


class NPSDistance:
    """Writes the distances of noise power spectra to the reference's (``nps_distance``) as JSON, means over volumes.

    Spectra are those of the same patches in both, the calmest soft tissue of the reference (``uniform_patches``). Volumes with
    fewer than ``MIN_PATCHES`` of them are left out; where none is left, or the reference is a phantom without noise, the
    distances are null, and "reason" says which. Attach it to the evaluator (``CNCLEvaluator``) with batches of one slice, in the order of the data set.

    Args:
        path: of the file.
        dataset: what the evaluator runs on.
    """

    def __init__(self, path: str | Path, *, dataset: SlicePairs) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.patches: dict[str, dict[str, list[np.ndarray]]] = {}
        self.spacing: dict[str, tuple[float, float]] = {}
        self.noise_free = False

    def attach(self, engine: Engine) -> None:
        """Collect patches during the evaluation, write at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the patches of this slice in every image."""
        entry, _ = self.dataset.slices[(engine.state.iteration - 1) % engine.state.epoch_length]
        if entry.get("provenance", {}).get("truth") == "noise-free":
            self.noise_free = True
            return
        slices = {key: _slice(engine.state.output[key]) for key in ("label", *DISTANCES.values())}
        corners = uniform_patches(slices["label"])
        if corners:
            kept = self.patches.setdefault(entry["label"], defaultdict(list))
            for key, image in slices.items():
                kept[key].append(patches_at(image, corners))
            self.spacing[entry["label"]] = (float(entry["spacing_mm"][0]), float(entry["spacing_mm"][1]))

    def completed(self, _engine: Engine) -> None:
        """Write the file."""
        found: dict[str, list[float]] = defaultdict(list)
        count = 0
        for volume, kept in self.patches.items():
            patches = {key: np.concatenate(parts) for key, parts in kept.items()}
            if len(patches["label"]) < MIN_PATCHES:
                continue
            count += len(patches["label"])
            spectra = {key: noise_power_spectrum(part, self.spacing[volume]) for key, part in patches.items()}
            for name, key in DISTANCES.items():
                found[name].append(nps_distance(spectra[key], spectra["label"]))
        content: dict[str, Any] = {name: float(np.mean(found[name])) if found else None for name in DISTANCES}
        if not found:
            content["reason"] = _NOISE_FREE if self.noise_free else _NO_TISSUE
        content |= {"spectra": SPECTRUM_KIND, "volumes": len(found["nps_distance"]), "patches": count}
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _slice(image: Any) -> np.ndarray:
    return image[0, 0].float().cpu().numpy()
