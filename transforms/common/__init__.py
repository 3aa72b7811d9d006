"""What every other room needs: atomic files, checksums, errors, HU and network units."""
