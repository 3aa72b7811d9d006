"""``ct-cncl pack``: write a bundle to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say


def pack(
    out: Annotated[Path, typer.Option("--out", help="Folder for the zip and its SHA-256.")] = Path("dist"),
    weights: Annotated[
        Optional[Path], typer.Option(help="A run's best.pt. Default: the bundle's own weights.", metavar="CHECKPOINT")
    ] = None,
    overlays: Annotated[
        Optional[list[str]],
        typer.Option(
            "--with", metavar="OVERLAY", help="Overlay that the weights were trained with; its settings are added."
        ),
    ] = None,
    version: Annotated[Optional[str], typer.Option(help="Version of this bundle. Default: the project's.")] = None,
    changes: Annotated[Optional[str], typer.Option(help="What is new, for the bundle's changelog.")] = None,
    card: Annotated[
        Optional[Path],
        typer.Option(
            help="Model card of your own weights. Default: a draft filled in from the run, with the gaps that you must fill marked.",
            metavar="FILE",
        ),
    ] = None,
    authors: Annotated[str, typer.Option(help="Who trained your own weights.", show_default=False)] = "",
    data_source: Annotated[str, typer.Option(help="What your own weights were trained on.", show_default=False)] = "",
    licence: Annotated[
        str,
        typer.Option(
            "--license", help="Licence of your own weights and their data: a file, or its text.", show_default=False
        ),
    ] = "",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import and run your own classes that the weights' config names; they go into the zip.",
        ),
    ] = False,
    sealed: Annotated[
        Optional[Path],
        typer.Option(
            "--seal",
            help="Instead of packing weights: repack this bundle, whose card or metadata you edited, with new checksums.",
            metavar="BUNDLE",
        ),
    ] = None,
) -> None:
    """Write ct_cncl_v<version>.zip: configs, docs, weights as .pt, .ts and .onnx, the code they need, and an example with its result.

    The bundle runs wherever MONAI and the packages in its metadata are installed, without this project. The same input gives a
    bit-identical zip. `ct-cncl verify` checks it, `ct-cncl publish` publishes it.

    Examples:
      ct-cncl pack --out dist

      ct-cncl pack --weights runs/ours/best.pt --with cncl_fast --version 0.2.0+ours --changes "our scanner" --card card.md --authors "Jane Doe" --out dist

      ct-cncl pack --seal unpacked/ct_cncl --out sealed
    """
    from ct_cncl.pipeline.sharing.card import TO_WRITE, Texts, places_in_archive
    from ct_cncl.pipeline.sharing.pack import checksum_file
    from ct_cncl.pipeline.sharing.pack import pack as pack_bundle
    from ct_cncl.pipeline.sharing.seal import seal
    from ct_cncl.pipeline.weights.load import imports_of

    texts = Texts(card, authors, data_source, licence)
    if sealed is not None:
        others = {
            "--weights": weights,
            "--with": overlays,
            "--version": version,
            "--changes": changes,
            "a card's options": texts != Texts(),
        }
        if given := [name for name, value in others.items() if value]:
            raise typer.BadParameter(f"expected --seal with --out alone, but got {', '.join(given)} as well")
        path = seal(sealed, out)
    else:
        if trust and weights is not None:
            say(*imports_of(weights))
        path = pack_bundle(
            out, weights=weights, overlays=overlays, version=version, changes=changes, texts=texts, trust=trust
        )
    say(f"{path}  {path.stat().st_size / 2**20:.1f} MiB", checksum_file(path).read_text(encoding="utf-8").split()[0])
    if places := places_in_archive(path):
        say(
            f"{places} places in its card, licence and metadata are still to be written: unpack it, search for {TO_WRITE}, write them, and "
            "pack the folder again with --seal."
        )
