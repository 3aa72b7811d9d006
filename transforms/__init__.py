"""Files and arrays in, training pairs and files out. Knows no network."""

__version__ = "0.1.0"
