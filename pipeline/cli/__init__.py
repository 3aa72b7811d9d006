"""The command ``ct-cncl``: one small file per command; heavy imports happen only when they are needed."""

from ct_cncl.pipeline.cli.app import main

__all__ = ["main"]
