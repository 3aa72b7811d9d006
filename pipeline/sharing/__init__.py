"""Packs a bundle for others, publishes it, and checks what others have packed."""
