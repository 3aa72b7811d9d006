"""Draw the error maps of an ablation's variants side by side, a row for each: result, C(y) and y - N(y), each minus the reference.

    .venv/bin/python benchmarks/ablation_maps.py runs/q4 --out maps.png [--slice 1] [--range 200] [--variants NAME ...]

The slices are those that the ablation's report shows. The first row is the input minus the reference. Grey is no error, black and white
are -RANGE/2 and RANGE/2 HU. Also prints the RMSE of the results in HU, over all these slices: in tissue (reference above -200 HU), in lung
(-900 to -500 HU) and in air (below -900 HU).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ct_cncl.pipeline.handlers.kept_slices import KEPT

TILE, LABEL = 190, 190
REGIONS = {"tissue": (-200, np.inf), "lung": (-900, -500), "air": (-np.inf, -900)}
"""Lowest and highest HU of the reference."""
COLUMNS = (("result - reference", "pred"), ("C(y) - reference", "content"), ("y - N(y) - reference", "denoised"))


def body(reference: np.ndarray) -> tuple[slice, slice]:
    """The square around what is denser than -300 HU in a slice (x, y)."""
    dense = np.argwhere(reference > -300)
    low, high = dense.min(axis=0), dense.max(axis=0)
    side = min(int((high - low).max()) + 1, *reference.shape)
    start = [int(np.clip((a + b - side) // 2, 0, n - side)) for a, b, n in zip(low, high, reference.shape)]
    return slice(start[0], start[0] + side), slice(start[1], start[1] + side)


def tile(error: np.ndarray, width: float) -> Image.Image:
    """An error map (x, y), HU, as an image of TILE pixels."""
    grey = np.clip(error.T / width + 0.5, 0, 1) * 255
    return Image.fromarray(grey.round().astype(np.uint8)).resize((TILE, TILE), Image.Resampling.LANCZOS)


def errors_by_region(result: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """RMSE (HU) of slices (K, x, y) in each of the regions; NaN where the reference has none of it."""
    squares = (result.astype(np.float64) - reference) ** 2
    places = {name: (reference > low) & (reference < high) for name, (low, high) in REGIONS.items()}
    return {name: float(np.sqrt(squares[place].mean())) if place.any() else np.nan for name, place in places.items()}


def main() -> None:
    """One picture, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablation", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slice", type=int, default=0, help="number of the slice in the report, from 0")
    parser.add_argument("--range", type=float, default=200.0, help="HU from black to white")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--variants", nargs="+", help="default: all")
    asked = parser.parse_args()
    names = asked.variants or sorted(path.name for path in (asked.ablation / "runs").iterdir())
    files = {name: asked.ablation / "runs" / name / f"evaluation_{asked.split}" / "slices.npz" for name in names}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise SystemExit(f"Expected {missing[0]}, but it does not exist. Name a folder of ct-cncl ablate.")
    rows: list[tuple[str, list[np.ndarray]]] = []
    for name, file in files.items():
        with np.load(file) as stored:
            whole = {key: stored[key] for key in KEPT}
        if not rows:
            print(f"| RMSE HU | {' | '.join(REGIONS)} |")
            print("|---|---:|---:|---:|")
        for title, key in ([] if rows else [("input", "image")]) + [(name, "pred")]:
            found = errors_by_region(whole[key], whole["label"])
            print(f"| {title} | {' | '.join(f'{value:.1f}' for value in found.values())} |")
        kept = {key: images[asked.slice] for key, images in whole.items()}
        place = body(kept["label"])
        if not rows:
            rows.append(("input - reference", [(kept["image"] - kept["label"])[place]]))
        rows.append((name.replace("+", "\n+"), [(kept[key] - kept["label"])[place] for _, key in COLUMNS]))
    picture = Image.new("L", (LABEL + TILE * len(COLUMNS), 20 + TILE * len(rows)), 255)
    draw = ImageDraw.Draw(picture)
    for column, (title, _) in enumerate(COLUMNS):
        draw.text((LABEL + TILE * column + 5, 4), title, fill=0)
    for number, (name, maps) in enumerate(rows):
        draw.text((4, 20 + TILE * number + TILE // 2 - 10), name, fill=0)
        for column, error in enumerate(maps):
            picture.paste(tile(error, asked.range), (LABEL + TILE * column, 20 + TILE * number))
    picture.save(asked.out)


if __name__ == "__main__":
    main()
