"""Errors with a one-line message for the user."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one line."""


class ConfigError(ValueError):
    """A config, overlay or override cannot be used; the message is one line."""
