"""Interpolate between the weights of two networks, and measure how noise and error change in between."""
