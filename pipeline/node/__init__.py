"""A DICOM node that receives series over the network, denoises them and sends the results on, without losing any."""
