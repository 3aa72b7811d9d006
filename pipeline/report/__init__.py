"""Draws what people look at: reports as one HTML file, their tables and charts."""
