"""Measures the noise of scans without a reference: figures, tables, a page."""
