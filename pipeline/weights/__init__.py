"""Trained weights: loading them, reviewing those of strangers, and describing the scans that they were trained on."""
