"""Measure the noise of scans without a reference: figures, tables and a page."""
