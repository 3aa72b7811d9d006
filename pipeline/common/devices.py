"""Devices by name."""

from __future__ import annotations

import torch

from ct_cncl.pipeline.common.errors import ConfigError


def checked_device(name: str) -> str:
    """``name`` if torch knows such a device here.

    Raises:
        ConfigError: unknown name, or no such device in this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # meta has shapes and no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ConfigError(
            f"Expected a device of this machine (auto, cpu, cuda, cuda:N), but got {name!r}: {reason}."
        ) from error
    return name
