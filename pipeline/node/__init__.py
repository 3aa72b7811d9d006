"""A DICOM node: receives series over the network, denoises them and sends the results on, without losing any."""
