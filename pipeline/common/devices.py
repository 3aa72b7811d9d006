"""Checks names of devices."""

from __future__ import annotations

import torch

from ct_cncl.pipeline.common.errors import ConfigError


def checked_device(name: str) -> str:
    """Return ``name`` if torch can use this device on this machine.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # copying back refuses "meta", whose tensors have no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ConfigError(
            f"Expected a device of this machine (auto, cpu, cuda, cuda:N), but got {name!r}: {reason}."
        ) from error
    return name
