"""Shared by all other folders: atomic files, locks, checksums, errors, HU and network units."""
