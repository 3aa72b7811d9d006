"""Shared by all folders of the pipeline: errors, optional packages, checkpoint files, processes."""
