"""Denoises one scan or an archive, from files or from memory."""
