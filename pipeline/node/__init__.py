"""A DICOM node: series come in over the network, denoised ones go on, and nothing is lost on the way."""
