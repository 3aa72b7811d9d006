"""Patches per second that the training input alone delivers: this project's and a plain MONAI pipeline's, in one process.

    .venv/bin/python benchmarks/training_input.py [--quick] [--json FILE]

The plain pipeline is LoadImaged from .nii.gz, RandSpatialCropSamplesd of 64 x 64, random flips and MONAI's DataLoader with default
settings; also with CacheDataset, whose volumes are loaded before the clock starts.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import curve, dataset, options, report
from torch.utils.data import DataLoader

from ct_cncl.pipeline.workflow.run import config_file, load_config
from ct_cncl.transforms import PatchPairs, SampleNumbers
from ct_cncl.transforms.dataset.datalist import read_datalist

BATCH, SIDE = 16, 64


def delivered(loader: Any, patches: int, size: int = BATCH) -> float:
    """Patches per second of a loader's first batches, not counting the very first."""
    batches = iter(loader)
    next(batches)
    started = time.perf_counter()
    count = sum(1 for _ in islice(batches, max(patches // size, 1)))
    return count * size / (time.perf_counter() - started)


def preprocessing(*, foreign: bool = False, **patches: Any) -> Any:
    """``train#preprocessing`` of train.json; if ``foreign``, with one of MONAI's random transforms at the end."""
    from monai.bundle import ConfigParser
    from monai.transforms import RandGaussianNoised

    config = load_config([config_file("train.json")])
    parser = ConfigParser({"patches": config["patches"] | {"size": SIDE} | patches, "train": config["train"]})
    compose = parser.get_parsed_content("train#preprocessing")
    if foreign:
        compose.transforms = [*compose.transforms, RandGaussianNoised(["image"], prob=0.5, std=0.001)]
    return compose


def ours(entries: list[dict], patches: int, *, workers: int = 0, **settings: Any) -> float:
    """Patches per second of this project's loader, in its second pass: the first one also pays for mapping the files."""
    total = 2 * patches + 4 * BATCH
    options = {key: settings.pop(key) for key in ("cache", "context_slices") if key in settings}
    data = PatchPairs(entries, preprocessing(**settings), patches_per_epoch=total, seed=0, **options)
    loader = DataLoader(
        data, batch_size=BATCH, sampler=SampleNumbers(total), num_workers=workers, persistent_workers=workers > 0
    )
    delivered(loader, patches)
    return delivered(loader, patches)


def monai_pipeline(entries: list[dict], folder: Path, patches: int, *, cached: bool) -> float:
    """Patches per second of the pipeline that tutorials build; each volume read gives a batch of patches."""
    from monai.data import CacheDataset, Dataset
    from monai.data import DataLoader as PlainLoader
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        RandFlipd,
        RandSpatialCropSamplesd,
        ScaleIntensityRanged,
    )

    keys = ["image", "label"]
    items = []
    for number, entry in enumerate(entries):
        items.append({key: str(folder / f"{number}_{key}.nii.gz") for key in keys})
        for key in keys:
            if not Path(items[-1][key]).exists():
                Path(items[-1][key]).write_bytes(gzip.compress(Path(entry[key]).read_bytes(), 1))
    steps = [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        ScaleIntensityRanged(keys, a_min=-1024, a_max=3072, b_min=0, b_max=1),
        RandSpatialCropSamplesd(keys, roi_size=(SIDE, SIDE, 1), num_samples=BATCH, random_size=False),
        RandFlipd(keys, prob=0.5, spatial_axis=0),
        RandFlipd(keys, prob=0.5, spatial_axis=1),
    ]
    kind = CacheDataset if cached else Dataset
    repeated = items * (1 + (patches // BATCH + 2) // len(items))
    data = kind(items if cached else repeated, Compose(steps), **({"progress": False} if cached else {}))
    if cached:
        data = torch.utils.data.Subset(data, list(range(len(items))) * (1 + (patches // BATCH + 2) // len(items)))
    return delivered(PlainLoader(data, batch_size=1), patches)


def main() -> None:
    """Measure, and print ratios first."""
    parser = options(__doc__)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    patches, few = (64, 32) if asked.quick else (3200, 96)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        depth, side = (2, 96) if asked.quick else (40, 512)
        entries = read_datalist(dataset(folder / "data", volumes=2 if asked.quick else 4, side=side, depth=depth))[
            "training"
        ]
        own = ours(entries, patches)
        plain = monai_pipeline(entries, folder, few, cached=False)
        cached = monai_pipeline(entries, folder, few, cached=True)
        what = f"{SIDE} x {SIDE}, batch {BATCH}, one process: {own:.0f} patches/s"
        results: list[dict[str, Any]] = [
            {
                "what": f"{what}, plain MONAI from .nii.gz {plain:.1f}",
                "ratio": own / plain,
                "ours": own,
                "theirs": plain,
            },
            {
                "what": f"{what}, MONAI's CacheDataset {cached:.0f}",
                "ratio": own / cached,
                "ours": own,
                "theirs": cached,
            },
        ]
        counts = (0, 1) if asked.quick else (0, 1, 2)
        by_workers = [(workers, ours(entries, patches, workers=workers)) for workers in counts]
        sides = (32, 64) if asked.quick else (32, 64, 96, 128, 256)
        by_side = {
            cache: [(side, ours(entries, patches // 4, size=side, cache=cache)) for side in sides]
            for cache in ("none", "ram")
        }
        results.append(
            {
                "curves": [
                    curve(
                        "Training input by workers",
                        "workers of the loader (0: none)",
                        "patches/s",
                        {"64 x 64": by_workers},
                    ),
                    curve("Training input by patch size", "pixels a side", "patches/s", by_side),
                ]
            }
        )
        kinds: dict[str, dict[str, Any]] = {
            "zoom": {"zoom_range": [0.8, 1.25]},
            "kernel": {"sharpness_range": [-0.5, 1.0]},
            "3 slices": {"context_slices": 3},
            "a random transform of MONAI's own (RandGaussianNoised)": {"foreign": True},
        }
        for kind, settings in kinds.items():
            rate = ours(entries, patches // 2, **settings)
            results.append(
                {"what": f"with {kind}: {rate:.0f} patches/s", "ratio": rate / plain, "ours": rate, "theirs": plain}
            )
    report(results, asked)


if __name__ == "__main__":
    main()
