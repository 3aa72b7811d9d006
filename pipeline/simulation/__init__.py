"""The command ``simulate``: scans at a lower dose, with the batch run that ``denoise`` uses."""
