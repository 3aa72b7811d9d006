"""Helpers for configs whose discriminator may be null, which means training without an adversary."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_absent(component: Any) -> bool:
    """Whether a component of the config is null. Configs use this for ``_disabled_`` of the components that need it."""
    return component is None


def parameters_of(network: nn.Module | None) -> list[nn.Parameter]:
    """The parameters of a network; empty if it is None.

    >>> parameters_of(None)
    []
    """
    return [] if network is None else list(network.parameters())
