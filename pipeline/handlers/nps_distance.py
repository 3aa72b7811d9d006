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
"""Names of the distances, and the evaluator's image of each."""

SPECTRUM_KIND = "radial"
"""Kind of the spectra, written with the distances. Files without it are older than 24 November 2026 and use single frequencies."""

_NOISE_FREE = "the reference is a phantom without noise"
_NO_TISSUE = f"no volume has {MIN_PATCHES} calm soft-tissue patches of {PATCH} x {PATCH} pixels"


class NPSDistance:
    """Writes the distances of noise power spectra to the reference's (``nps_distance``) as JSON, as means over volumes.

    Both spectra are taken from the same patches, in the most uniform soft tissue of the reference (``uniform_patches``). Volumes
    with fewer than ``MIN_PATCHES`` patches are left out. If no volume is left, or the reference is a noise-free phantom, the
    distances are null and "reason" says which. Attach it to the evaluator (``CNCLEvaluator``) with batches of one slice, in the
    order of the data set.

    Args:
        path: path of the file.
        dataset: data set on which the evaluator runs.
    """

    def __init__(self, path: str | Path, *, dataset: SlicePairs) -> None:
        self.path = Path(path)
        self.dataset = dataset
        self.patches: dict[str, dict[str, list[np.ndarray]]] = {}
        self.spacing: dict[str, tuple[float, float]] = {}
        self.noise_free = False

    def attach(self, engine: Engine) -> None:
        """Collect patches during the evaluation, and write the file at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep this slice's patches of every image."""
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
