"""Write docs/results/performance.md from the results of the benchmarks and from notes.md, which holds all hand-written text.

.venv/bin/python benchmarks/page.py FOLDER [--out docs/results/performance.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HEADINGS = {
    "startup": "Start-up",
    "training_input": "Training input",
    "training": "Training step",
    "inference": "Inference, network alone",
    "denoise_series": "Inference, from DICOM to DICOM",
    "physics": "Projection and back projection",
}
NOTES = Path(__file__).with_name("notes.md")
"""Hand-written text: what stands before its first heading follows the page's introduction, the rest ends the page."""


def picture(curves: list[dict[str, Any]], path: Path) -> None:
    """Draw all pictures of one benchmark side by side."""
    figure, axes = plt.subplots(
        1, len(curves), figsize=(4.2 * len(curves), 3.4), constrained_layout=True, squeeze=False
    )
    for axis, one in zip(axes[0], curves, strict=True):
        for name, points in one["series"].items():
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(title=one["title"], xlabel=one["x"], ylabel=one["y"])
        axis.title.set_fontsize(9)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def section(name: str, results: list[dict[str, Any]], out: Path) -> list[str]:
    """Heading, machine, table and pictures of one benchmark."""
    lines = [f"## {HEADINGS.get(name, name)}", "", f"`benchmarks/{name}.py`. {results[0].get('what', '')}", ""]
    lines += ["| ratio | what |", "|---:|---|"]
    for result in results[1:]:
        if "what" in result:
            ratio = f"{result['ratio']:.1f}" if "ratio" in result else ""
            lines.append(f"| {ratio} | {result['what']} |")
    for number, result in enumerate(result for result in results if "curves" in result):
        image = out.parent / "images" / f"performance_{name}{number or ''}.png"
        picture(result["curves"], image)
        titles = "; ".join(one["title"] for one in result["curves"])
        lines += ["", f"![{titles}](images/{image.name})"]
    return [*lines, ""]


def page(folder: Path, out: Path) -> None:
    """Write the page from the results in a folder.

    Args:
        folder: holds NAME.json, or a table NAME.md, of each benchmark that was run.
        out: the page; pictures go into the folder images/ next to it.
    """
    lines = [
        "# Performance",
        "",
        "How fast ct-cncl is, compared with the paper's network and with plain MONAI. `make bench` writes this page. A ratio above 1 means that",
        "what a row names first is faster. In rows about settings, precision and compiled code, this project is compared with itself. Both sides were",
        'measured in one run, in one process or in one process each. "Ceiling" is the speed of a matrix product or convolution measured in the same',
        'run, and "floor" the time that the operations would take at that speed.',
        "",
    ]
    notes = NOTES.read_text(encoding="utf-8") if NOTES.is_file() else ""
    first, heading_mark, sections = notes.partition("## ")
    lines += first.splitlines()
    for name, heading in HEADINGS.items():
        found, table = folder / f"{name}.json", folder / f"{name}.md"
        if found.is_file():
            lines += section(name, json.loads(found.read_text(encoding="utf-8")), out)
        elif table.is_file():  # from a benchmark that prints its own table
            lines += [
                f"## {heading}",
                "",
                f"`benchmarks/{name}.py`. Ratios are those of slices/s to the first row.",
                "",
                *table.read_text(encoding="utf-8").splitlines(),
                "",
            ]
    lines += (heading_mark + sections).splitlines()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/performance.md"))
    asked = parser.parse_args()
    page(asked.folder, asked.out)


if __name__ == "__main__":
    main()
