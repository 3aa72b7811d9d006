"""The noise of scans, measured without a reference: figures, tables, a page."""
