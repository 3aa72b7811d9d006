"""``ct-cncl publish``: publish a packed bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ct_cncl.transforms.common.terminal import say


def publish(
    source: Annotated[Path, typer.Argument(metavar="ZIP", help="A bundle written by `ct-cncl pack`.")],
    to: Annotated[str, typer.Option("--to", help="folder, file-server or huggingface.")],
    target: Annotated[str, typer.Option("--target", help="A folder, a URL, or owner/name of a repository.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Only say what would be done, or do it.")
    ] = True,
) -> None:
    """Publish a bundle to a folder or file server with an index (model_info.json), or to a private repository on the Hugging Face Hub.

    Nothing is done without --no-dry-run. The bundle is checked first, as by `ct-cncl verify --no-exec`. A published version with
    different content is never replaced. A file server must accept HTTP PUT; CT_CNCL_PUBLISH_TOKEN is sent as a bearer token over HTTPS.

    Examples:
      ct-cncl publish dist/ct_cncl_v0.2.0.zip --to folder --target /srv/models --no-dry-run

      ct-cncl publish dist/ct_cncl_v0.2.0.zip --to huggingface --target hospital/ct_cncl
    """
    from ct_cncl.pipeline.sharing.publish import publish as publish_bundle

    for step in publish_bundle(source, to=to, target=target, dry_run=dry_run):
        say(f"{'would' if dry_run else 'did'} {step}")
    if dry_run:
        say("Nothing was done; add --no-dry-run to do it.")
