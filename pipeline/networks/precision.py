"""Mixed precision by name: on CUDA and, on request, on processors that multiply bfloat16 matrices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ct_cncl.pipeline.networks import Branches

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bf16_any": torch.bfloat16,
}
"""Types by name; "bf16_any" is bf16 on the CPU as well: two to four times as fast on processors with AMX, slower on others."""
INFERENCE = ("fp32", "bf16", "auto")
"""Precisions of inference, on any device; "auto" is bf16 if the device computes it faster."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to ``precision`` on CUDA; on the CPU only for "bf16_any", since few processors support it well.

    Args:
        device: device on which the network runs.
        precision: "fp32", "bf16", "fp16" or "bf16_any".

    Raises:
        ValueError: the name is unknown.
    """
    if precision not in DTYPES:
        raise ValueError(f"Expected precision to be one of {', '.join(DTYPES)}, but got {precision!r}.")
    if precision == "fp32" or (device.type != "cuda" and precision != "bf16_any"):
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaler, active only for fp16 on CUDA (bf16 has the range of float32)."""
    return torch.amp.GradScaler(device.type, enabled=device.type == "cuda" and precision == "fp16")


class InBF16(nn.Module):
    """A network under autocast to bfloat16, also on the CPU; its input and output stay float32.

    Args:
        network: maps (B, slices, H, W) to (B, 1, H, W) in network units.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The network's output for ``image`` (B, slices, H, W), float32."""
        with autocast(image.device, "bf16_any"):
            return self.network(image).float()


class BranchesInBF16(InBF16):
    """The same for a network that also returns content and noise."""

    def branches(self, image: torch.Tensor) -> Branches:
        """All estimates for ``image`` (B, slices, H, W), float32."""
        with autocast(image.device, "bf16_any"):
            predicted = self.network.branches(image)  # type: ignore[operator]
        return Branches(*(branch.float() for branch in predicted))


def in_precision(network: nn.Module, *, device: torch.device, precision: str) -> nn.Module:
    """A network as inference runs it: the network itself in fp32, wrapped in :class:`InBF16` otherwise.

    Args:
        network: the network, on ``device``.
        device: device of the network.
        precision: one of :data:`INFERENCE`.

    Raises:
        ValueError: the name is unknown.
    """
    if chosen_precision(precision, device) == "fp32":
        return network
    return BranchesInBF16(network) if hasattr(network, "branches") else InBF16(network)


def chosen_precision(name: str, device: torch.device) -> str:
    """The precision that ``name`` means on a device: "fp32" or "bf16".

    Args:
        name: one of :data:`INFERENCE`.
        device: device that decides what "auto" means.

    Raises:
        ValueError: the name is unknown.

    >>> chosen_precision("bf16", torch.device("cpu"))
    'bf16'
    """
    if name not in INFERENCE:
        raise ValueError(f"Expected precision to be one of {', '.join(INFERENCE)}, but got {name!r}.")
    if name != "auto":
        return name
    return "bf16" if is_made_for_bf16(device) else "fp32"


def is_made_for_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: GPUs from Ampere on, and processors with AMX.

    If torch cannot tell what the processor supports, it is taken to lack AMX.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(features.get("amx_bf16", False))
