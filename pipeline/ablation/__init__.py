"""Trains several variants under the same conditions, evaluates them on the same slices and compares them in one table."""
