"""The command ``prepare`` as a function, and its picture of noise spectra."""
