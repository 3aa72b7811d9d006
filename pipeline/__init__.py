"""Learns and judges. Imports ct_cncl.transforms, never the other way."""
