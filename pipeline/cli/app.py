"""All commands in one application, and how errors are shown."""

from __future__ import annotations

import io
import os
import signal
import sys

import typer

from ct_cncl.pipeline.cli.ablate import ablate
from ct_cncl.pipeline.cli.demo import demo
from ct_cncl.pipeline.cli.denoise import denoise
from ct_cncl.pipeline.cli.evaluate import evaluate
from ct_cncl.pipeline.cli.interpolate import interpolate
from ct_cncl.pipeline.cli.models import models
from ct_cncl.pipeline.cli.node import node
from ct_cncl.pipeline.cli.noise import noise
from ct_cncl.pipeline.cli.pack import pack
from ct_cncl.pipeline.cli.prepare import prepare
from ct_cncl.pipeline.cli.publish import publish
from ct_cncl.pipeline.cli.qa import qa
from ct_cncl.pipeline.cli.simulate import simulate
from ct_cncl.pipeline.cli.train import train
from ct_cncl.pipeline.cli.verify import verify
from ct_cncl.pipeline.common.threads import set_spin_count
from ct_cncl.transforms.common.noise import quieten
from ct_cncl.transforms.common.terminal import say

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="ct-cncl",
    help="Denoise low-dose CT by content-noise complementary learning. Research only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        from ct_cncl.transforms import __version__

        say(f"ct-cncl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Denoise low-dose CT by content-noise complementary learning. Research only; not a medical device."""


for command in (
    demo,
    prepare,
    simulate,
    noise,
    train,
    evaluate,
    denoise,
    ablate,
    models,
    interpolate,
    qa,
    pack,
    verify,
    publish,
):
    app.command()(command)
app.add_typer(node, name="node")


def _stop_as_ctrl_c() -> None:
    """Make SIGTERM (Slurm preemption, a container stopping) and SIGHUP (a closed terminal) act like Ctrl-C, so that commands clean up.

    Under torchrun the system's default stays: a process that waits in a collective operation would never handle the signal.
    """
    own = os.getpid()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() != own:  # a forked worker: its parent cleans up
            os._exit(128 + number)
        raise KeyboardInterrupt

    if os.environ.get("WORLD_SIZE", "1") == "1":
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP: leave it so
                signal.signal(number, stop)


def main() -> None:
    """Run the command line; an error is one line on standard error and a non-zero exit code."""
    set_spin_count()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # do not fail on a character that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    _stop_as_ctrl_c()
    debug = "--debug" in sys.argv
    if not debug:
        quieten()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=["--debug", *arguments] if debug else arguments, standalone_mode=True)
    except KeyboardInterrupt:
        say("", "Stopped.", error=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        say(f"error: {one_line(error)}", error=True)
        sys.exit(1)


def one_line(error: BaseException) -> str:
    r"""An exception's message on one line. Its type comes first unless the message was written for users.

    >>> one_line(ValueError("Expected a,\n but got b."))
    'Expected a, but got b.'
    """
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"Expected enough memory, but got: {message or 'none left'}. Free some, or raise the limit (ulimit -v)."
    if isinstance(error, (ValueError, OSError, FloatingPointError)) and message:
        return message
    return f"unexpected {type(error).__name__}: {message} Run again with --debug for the traceback."
