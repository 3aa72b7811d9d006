"""Helpers for configs whose discriminator may be null, which means training without an adversary."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_absent(component: Any) -> bool:
    """Whether a component of the config is null: what ``_disabled_`` of whatever needs it asks."""
    return component is None


def parameters_of(network: nn.Module | None) -> list[nn.Parameter]:
    """The parameters of a network; none of one that is null.

    >>> parameters_of(None)
    []
    """
    return [] if network is None else list(network.parameters())
