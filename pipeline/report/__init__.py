"""Renders reports: single HTML files, with their tables and charts."""
