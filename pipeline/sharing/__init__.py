"""Pack a bundle for others, publish it, and verify bundles that others have packed."""
