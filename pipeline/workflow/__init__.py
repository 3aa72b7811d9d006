"""Runs the bundle's configs: locations, overlays, and how a network is built."""
