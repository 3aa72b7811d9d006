"""The standard phantom test of a denoiser: noise, noise power, task transfer, linearity of HU, detectability over dose."""
