"""Files and arrays in, training pairs and files out: what knows no network."""

__version__ = "0.1.0"
