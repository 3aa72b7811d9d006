"""Denoising of one scan or an archive, from files or in memory."""
