"""Patches for training, and the transforms that prepare them."""
