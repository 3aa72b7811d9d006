"""Trained weights: load them, review those from others, and describe the scans on which they were trained."""
