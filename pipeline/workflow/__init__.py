"""Running the bundle's configs: locations, overlays, checks, and building the network."""
