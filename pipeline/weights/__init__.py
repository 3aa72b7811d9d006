"""Trained weights: loading them, reviewing a stranger's, and the scans that they were trained on."""
