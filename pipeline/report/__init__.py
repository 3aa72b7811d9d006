"""Render reports: single HTML files with tables and charts."""
