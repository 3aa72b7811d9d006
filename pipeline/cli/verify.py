"""``ct-cncl verify``: list what a bundle would run, and check that it works as it claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    source: Annotated[Path, typer.Argument(metavar="ZIP|DIR", help="A packed bundle, or a bundle's folder.")],
    no_exec: Annotated[
        bool, typer.Option("--no-exec", help="Only read and list: nothing in the bundle is run, imported or unpickled.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the bundle even if it holds code or expressions that the installed release does not have.",
        ),
    ] = False,
) -> None:
    """List what a bundle would execute, then check it: model zoo rules, checksums, network, exports and the result of the example.

    A MONAI config is code: every string that begins with $ is evaluated, and every _target_ is called. These and all code files
    are first listed and compared with the installed release. Anything that the release does not have is run only with --trust.

    Examples:
      ct-cncl verify dist/ct_cncl_v0.2.0.zip

      ct-cncl verify downloads/strangers_bundle.zip --no-exec
    """
    from ct_cncl.pipeline.sharing.verify import SKIPPED, review_source
    from ct_cncl.pipeline.sharing.verify import verify as verify_bundle
    from ct_cncl.transforms.common.terminal import say

    found = review_source(source)
    say(f"{source} would execute:")
    for line in found.review.lines():
        say(f"  {line}")  # text from a stranger: indented, so that it cannot pass for a line of ours
    say(f"{len(found.review.doubts)} of these are not in the installed release.", "")
    if not no_exec:
        found = verify_bundle(source, trust=trust)
    for check in found.checks:
        say(f"{check.state:8} {check.name}: {check.said}")
    if not found.good:
        raise ValueError(
            f"Expected a bundle without faults, but {source} has some, named above. Do not use it as it is."
        )
    skipped = sum(check.state == SKIPPED for check in found.checks)
    say(f"No fault found in {len(found.checks) - skipped} checks" + (f"; {skipped} skipped." if skipped else "."))
