"""The command ``ct-cncl``: one small file a command, nothing heavy imported before it is needed."""

from ct_cncl.pipeline.cli.app import main

__all__ = ["main"]
