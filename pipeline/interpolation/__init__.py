"""Interpolates between the weights of two networks, and measures how noise and error change on the way."""
