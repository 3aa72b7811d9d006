"""The command ``simulate``: simulation of scans at a lower dose, with the same batch run as ``denoise``."""
