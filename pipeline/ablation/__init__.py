"""Training several variants under the same conditions, evaluating them on the same slices, and comparing them in one table."""
