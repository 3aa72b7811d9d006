"""Draw the diagrams of the documentation: `.venv/bin/python docs/diagrams.py` (--pictures: also those made with the shipped weights)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

IMAGES = Path(__file__).parent / "images"
BLUE, ORANGE, GREEN, GREY = "#dbe7f8", "#fde5cf", "#d9f0dc", "#eeeeee"
ARROWHEAD = '<defs><marker id="a" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto"><path d="M0,0 L9,4 L0,8 z"/></marker></defs>'


class Drawing:
    """An SVG of boxes, arrows and words, on white so that it is legible on a dark page."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>{ARROWHEAD}",
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def words(
        self, x: float, y: float, text: str, *, size: int = 14, anchor: str = "middle", colour: str = "#222"
    ) -> None:
        """Add lines of text, centred vertically on (x, y)."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            height = y + (number - (len(lines) - 1) / 2) * size * 1.25 + size * 0.35
            self.parts.append(
                f'<text x="{x:.1f}" y="{height:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(line)}</text>'
            )

    def box(self, x: float, y: float, width: float, height: float, text: str, colour: str = BLUE) -> None:
        """Add a box with words in it; (x, y) is its upper left corner."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}" stroke="#555"/>'
        )
        self.words(x + width / 2, y + height / 2, text)

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """Add an arrow along the points."""
        way = " ".join(f"{x},{y}" for x, y in points)
        style = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="#333" stroke-width="1.5" marker-end="url(#a)"{style}/>'
        )

    def line(self, points: list[tuple[float, float]], colour: str, width: float = 1.0) -> None:
        """Add a line through the points."""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def save(self, name: str) -> None:
        """Write the file."""
        (IMAGES / name).write_text("\n".join([*self.parts, "</svg>"]) + "\n", encoding="utf-8")


def network() -> None:
    """Draw the network and its losses."""
    d = Drawing(860, 330, "Two branches, one fusion")
    d.box(20, 110, 110, 60, "low-dose\nslice y", GREY)
    d.box(200, 40, 150, 60, "content branch")
    d.box(200, 180, 150, 60, "noise branch", ORANGE)
    d.box(420, 40, 90, 60, "C(y)")
    d.box(420, 180, 90, 60, "y - N(y)", ORANGE)
    d.box(570, 110, 100, 60, "fusion", GREEN)
    d.box(730, 110, 110, 60, "fused image\n(the result)", GREY)
    d.arrow((130, 130), (165, 130), (165, 70), (200, 70))
    d.arrow((130, 150), (165, 150), (165, 210), (200, 210))
    d.arrow((350, 70), (420, 70))
    d.arrow((350, 210), (420, 210))
    d.words(385, 200, "N(y)", size=12)
    d.arrow((510, 70), (540, 70), (540, 130), (570, 130))
    d.arrow((510, 210), (540, 210), (540, 150), (570, 150))
    d.arrow((670, 140), (730, 140))
    d.arrow((75, 170), (75, 262), (465, 262), (465, 240), dashed=True)
    d.words(270, 250, "y, to subtract from", size=12)
    d.words(
        430,
        300,
        "In training, C(y), y - N(y) and the fused image are each compared with the full-dose image.\nDisagreement is the absolute difference of C(y) and y - N(y).",
        size=13,
    )
    d.save("network.svg")


def way_of_a_slice() -> None:
    """Draw what `ct-cncl denoise` does with a slice."""
    d = Drawing(880, 250, "The way of a slice")
    steps = [
        ("stored\nvalues", GREY),
        ("HU, and which\npixels are padding", BLUE),
        ("(HU + 1024)\n/ 4096", BLUE),
        ("network", GREEN),
        ("back to HU", BLUE),
        ("strength,\npadding kept", ORANGE),
        ("rounded\nstored values", GREY),
    ]
    for number, (text, colour) in enumerate(steps):
        row, column = divmod(number, 4)
        x, y = 20 + column * 220, 30 + row * 120
        d.box(x, y, 170, 64, text, colour)
        if column < 3 and number < len(steps) - 1:
            d.arrow((x + 170, y + 32), (x + 220, y + 32))
    d.arrow((765, 94), (765, 122), (105, 122), (105, 150))
    d.words(790, 182, "written in the format\nof the source, with a\nderived image's header", size=13)
    d.save("slice.svg")


def dose_law() -> None:
    """Draw how much noise is inserted for a dose fraction."""
    d = Drawing(620, 360, "Noise by dose fraction")
    left, bottom, width, height, top = 70, 300, 500, 260, 3.2

    def place(dose: float, noise: float) -> tuple[float, float]:
        return left + (dose - 0.1) / 0.9 * width, bottom - noise / top * height

    for dose in (0.1, 0.25, 0.5, 0.75, 1.0):
        x, _ = place(dose, 0)
        d.line([(x, bottom), (x, bottom - height)], "#ddd")
        d.words(x, bottom + 16, f"{dose:g}", size=12)
    for noise in (0, 1, 2, 3):
        _, y = place(0.1, noise)
        d.line([(left, y), (left + width, y)], "#ddd")
        d.words(left - 16, y, str(noise), size=12)
    doses = [0.1 + 0.9 * k / 200 for k in range(201)]
    d.line([place(a, a**-0.5) for a in doses], "#1f5fbf", 2.5)
    d.line([place(a, max(1 / a - 1, 0) ** 0.5) for a in doses], "#d2691e", 2.5)
    d.words(330, 110, "noise of the low-dose image, 1/√a", anchor="start", colour="#1f5fbf", size=13)
    d.words(100, 278, "inserted noise, √(1/a - 1)", anchor="start", colour="#d2691e", size=13)
    d.words(left + width / 2, bottom + 42, "dose fraction a", size=13)
    d.words(left - 50, 18, "standard deviation, relative to the scan's own noise", anchor="start", size=13)
    d.save("dose_law.svg")


def branches() -> None:
    """Draw the last picture of the quick start by running its cells: both branches of the shipped weights on a phantom."""
    import matplotlib as mpl

    mpl.use("Agg")
    cells = json.loads((IMAGES.parent / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102  a file of this repository, which a test runs, too
    names["figure"].savefig(IMAGES / "branches.png", dpi=110)


def quarter_dose() -> None:
    """Draw the README's picture: a chest phantom at a quarter of the dose, denoised, its truth, and what was removed."""
    import matplotlib as mpl
    import torch
    from monai.data import MetaTensor

    from ct_cncl.pipeline import denoise
    from ct_cncl.transforms import SimulateLowDose
    from ct_cncl.transforms.phantom import anatomical_phantom

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    phantom = anatomical_phantom(77, slices=1, size=512, region="chest")
    simulate = SimulateLowDose(0.25, incident_photons=1e5, seed=1)
    low = simulate(MetaTensor(torch.as_tensor(phantom.hu)[None], affine=torch.as_tensor(phantom.affine)))[0].numpy()
    result = denoise(low, axes="xyz", device="cpu", progress=False)
    figure, axes = plt.subplots(1, 4, figsize=(20.64, 5.38), facecolor="black", layout="constrained")
    tiles = [
        ("quarter dose", low, 50, 400),
        ("denoised", result, 50, 400),
        ("truth", phantom.hu, 50, 400),
        ("removed", low - result, 0, 200),
    ]
    for axis, (name, image, centre, width) in zip(axes.flat, tiles, strict=True):
        axis.imshow(image[:, :, 0].T, cmap="gray", vmin=centre - width / 2, vmax=centre + width / 2)
        axis.set_title(f"{name} [{centre}/{width} HU]", color="white", loc="left")
        axis.axis("off")
    figure.savefig(IMAGES / "quarter_dose.png", dpi=100)


def main() -> None:
    """Draw all diagrams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", action="store_true", help="also draw the pictures made with the shipped weights")
    asked = parser.parse_args()
    network()
    way_of_a_slice()
    dose_law()
    if asked.pictures:
        branches()
        quarter_dose()


if __name__ == "__main__":
    main()
