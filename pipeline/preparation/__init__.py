"""The commands ``prepare`` and ``simulate`` as functions: options in, training data or low-dose scans out."""
