"""Makes the bundle's configs run: where things are, which overlays there are, how a network is built."""
