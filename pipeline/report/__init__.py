"""What people look at."""

from ct_cncl.pipeline.report.panel import comparison_panel, picture_panel, save_png

__all__ = ["comparison_panel", "picture_panel", "save_png"]
