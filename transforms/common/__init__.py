"""What every other room needs: atomic files, locks, checksums, errors, HU and network units."""
