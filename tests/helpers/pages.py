"""The pages whose commands tests check."""

from tiny_runs import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "bundles/ct_cncl/docs/README.md"]
