"""Learns and judges: what knows a network."""
