"""The standard phantom test of a denoiser: noise, noise power, task transfer, HU linearity, detectability by dose."""
