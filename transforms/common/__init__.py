"""Helpers that all other folders share: atomic file writing, locks, checksums, errors, HU and network units."""
