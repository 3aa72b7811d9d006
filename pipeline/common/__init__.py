"""Helpers that all folders of the pipeline share: errors, optional packages, checkpoint files, processes."""
