"""``ct-cncl node``: a DICOM node that receives series and sends denoised ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ct_cncl.transforms.common.terminal import say

Config = Annotated[Path, typer.Option("--config", help="The node's configuration; see docs/how-to/node.md.")]
DEFAULT = Path("node.yaml")
node = typer.Typer(invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False)


@node.callback()
def run(
    context: typer.Context,
    config: Config = DEFAULT,
    check: Annotated[
        Optional[Path], typer.Option("--check", help="Validate this configuration and start nothing.", metavar="YAML")
    ] = None,
    try_: Annotated[
        Optional[list[Path]],
        typer.Option("--try", help="With --check: say what would happen to this DICOM file, and why.", metavar="FILE"),
    ] = None,
    sender: Annotated[
        Optional[str],
        typer.Option("--from", help="With --try: the calling AE title. Default: that of the first sender."),
    ] = None,
) -> None:
    """Run a DICOM node: receive CT series, denoise them according to rules, and send the results on without losing any.

    A received series stays in the queue until its results have arrived at every destination, even if the machine fails in
    between. The page at http://127.0.0.1:8104 shows the queue. Needs `pip install 'ct-cncl[node]'`.

    Examples:
      ct-cncl node --config node.yaml

      ct-cncl node --check node.yaml --try slice.dcm

      ct-cncl node queue --config node.yaml
    """
    from ct_cncl.pipeline.node.extra import require_node

    require_node()
    if context.invoked_subcommand is not None:
        return
    if check is not None or try_:
        from ct_cncl.pipeline.node.check import explain

        say(*explain(check or config, list(try_ or ()), sender))
        return
    from ct_cncl.pipeline.node.service import run_node

    run_node(config)


@node.command()
def queue(
    config: Config = DEFAULT,
    state: Annotated[
        Optional[list[str]], typer.Option(help="Only jobs in this state. Repeatable.", metavar="STATE")
    ] = None,
) -> None:
    """List the jobs, newest last. The states are received, complete, denoising, sending, done and failed.

    Example:
      ct-cncl node queue --config node.yaml --state failed
    """
    from ct_cncl.pipeline.node.command import show_queue

    say(*show_queue(config, tuple(state or ())))


@node.command()
def retry(
    job: Annotated[int, typer.Argument(help="Number of the job, as queue shows it.")], config: Config = DEFAULT
) -> None:
    """Retry a failed job from where it failed, or retry a waiting job now. The node may be running.

    Example:
      ct-cncl node retry 12 --config node.yaml
    """
    from ct_cncl.pipeline.node.command import retry_job

    say(retry_job(config, job))


@node.command()
def drop(
    job: Annotated[int, typer.Argument(help="Number of the job, as queue shows it.")], config: Config = DEFAULT
) -> None:
    """Delete a job with its objects and results, so that the series can be sent again. The node may be running.

    Example:
      ct-cncl node drop 12 --config node.yaml
    """
    from ct_cncl.pipeline.node.command import drop_job

    say(drop_job(config, job))


@node.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("node_demo"),
    slices: Annotated[int, typer.Option(help="Slices of the phantom.")] = 12,
    size: Annotated[int, typer.Option(help="Side of a slice in pixels.")] = 512,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    stay: Annotated[bool, typer.Option(help="Keep running until Ctrl-C.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> None:
    """Start a node and, if it is installed, Orthanc; send the series of a phantom through them, and show the page.

    Example:
      ct-cncl node demo --out node_demo
    """
    from ct_cncl.pipeline.node.demo import run_node_demo

    run_node_demo(out, slices=slices, size=size, browser=browser, stay=stay, overwrite=overwrite)
