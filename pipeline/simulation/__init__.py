"""The command ``simulate``: scans at a lower dose, with the run over archives that ``denoise`` has."""
