"""Trains several variants alike, judges them on the same slices and compares them in one table."""
