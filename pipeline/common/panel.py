"""Pictures of CT slices in rows, each slice with its title and window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.hu import WINDOWS, Window, apply_window

DIFFERENCE_WINDOW = Window(0.0, 200.0)
"""Window for differences: 200 HU wide, with 0 HU in mid-grey."""
TITLE_HEIGHT = 22
GAP = 4


class Tile(NamedTuple):
    """One slice in a panel."""

    title: str
    hu: np.ndarray
    """(x, y) in HU; x is shown to the right and y downwards."""
    window: Window


def picture_panel(rows: Sequence[Sequence[Tile]]) -> np.ndarray:
    """Lay out tiles in rows, each with a title that states its window.

    Args:
        rows: tiles, all of the same (x, y) shape, with the same number in every row.

    Returns:
        (height, width) uint8 grey levels.

    Raises:
        ValueError: there are no tiles, or their shapes or the lengths of the rows differ.

    >>> picture_panel([[Tile("water", np.zeros((64, 32)), Window(0, 200))]]).shape
    (58, 68)
    """
    shapes = {tile.hu.shape for row in rows for tile in row}
    if len(shapes) != 1 or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"Expected rows with the same number of tiles, all of one shape (x, y), but got shapes {sorted(shapes)}."
        )
    width, height = shapes.pop()
    columns = len(rows[0])
    canvas = Image.new("L", (columns * (width + GAP), len(rows) * (height + TITLE_HEIGHT + GAP)), 0)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    for row_number, row in enumerate(rows):
        for column, tile in enumerate(row):
            left, top = column * (width + GAP) + GAP // 2, row_number * (height + TITLE_HEIGHT + GAP)
            draw.text((left + 2, top + 4), f"{tile.title}  [{tile.window}]", fill=255, font=font)
            shown = np.nan_to_num(apply_window(np.asarray(tile.hu, dtype=np.float32), tile.window))  # NaN is black
            grey = (shown * 255).round().astype(np.uint8)
            canvas.paste(Image.fromarray(np.ascontiguousarray(grey.T)), (left, top + TITLE_HEIGHT))
    return np.asarray(canvas)


def comparison_panel(
    *,
    image: np.ndarray,
    content: np.ndarray,
    denoised: np.ndarray,
    result: np.ndarray,
    reference: np.ndarray,
    window: Window = WINDOWS["abdomen"],
) -> np.ndarray:
    """Show input, C(y) and y - N(y) above; result, reference and result - reference below.

    Args:
        image: low-dose input y, (x, y), HU.
        content: C(y), (x, y), HU.
        denoised: y - N(y), (x, y), HU.
        result: fused image, (x, y), HU.
        reference: reference image, (x, y), HU.
        window: window of the five images; the difference has :data:`DIFFERENCE_WINDOW`.

    Returns:
        (height, width) uint8 grey levels.
    """
    above = [Tile("input", image, window), Tile("C(y)", content, window), Tile("y - N(y)", denoised, window)]
    below = [
        Tile("result", result, window),
        Tile("reference", reference, window),
        Tile("result - reference", result - reference, DIFFERENCE_WINDOW),
    ]
    return picture_panel([above, below])


def save_png(grey: np.ndarray, path: str | Path) -> Path:
    """Write (height, width) or (height, width, 3) uint8 as PNG, under its final name only when it is complete.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        Image.fromarray(grey).save(temporary, format="PNG")
    return path
