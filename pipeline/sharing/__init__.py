"""Packs a bundle for others, publishes it, and checks bundles that others packed."""
