"""The command ``prepare`` as a function: options in, training data out; and the picture of both noise spectra."""
