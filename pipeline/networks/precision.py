"""Mixed precision, by name: on CUDA, and on processors that multiply bfloat16 matrices where it is asked for."""

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
"""By name; "bf16_any" is bf16 on the CPU, too: two to four times as fast on processors with AMX, slower on others."""
INFERENCE = ("fp32", "bf16", "auto")
"""What inference can be asked for, on any device; "auto" is bf16 where the device is made for it."""


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to ``precision`` on CUDA; on the CPU for "bf16_any" only, as few processors are made for it.

    Args:
        device: where the network runs.
        precision: "fp32", "bf16", "fp16" or "bf16_any".

    Raises:
        ValueError: another name.
    """
    if precision not in DTYPES:
        raise ValueError(f"Expected precision to be one of {', '.join(DTYPES)}, but got {precision!r}.")
    if precision == "fp32" or (device.type != "cuda" and precision != "bf16_any"):
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaler, active for fp16 on CUDA only (bf16 has float32's range)."""
    return torch.amp.GradScaler(device.type, enabled=device.type == "cuda" and precision == "fp16")


class InBF16(nn.Module):
    """A network under autocast to bfloat16, on the CPU, too; images are float32 on both sides.

    Args:
        network: (B, slices, H, W) to (B, 1, H, W) in network units.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The network's output of ``image`` (B, slices, H, W), float32."""
        with autocast(image.device, "bf16_any"):
            return self.network(image).float()


class BranchesInBF16(InBF16):
    """A network that gives content and noise besides the result, likewise."""

    def branches(self, image: torch.Tensor) -> Branches:
        """All estimates of ``image`` (B, slices, H, W), float32."""
        with autocast(image.device, "bf16_any"):
            predicted = self.network.branches(image)  # type: ignore[operator]
        return Branches(*(branch.float() for branch in predicted))


def in_precision(network: nn.Module, *, device: torch.device, precision: str) -> nn.Module:
    """A network as inference runs it: itself in fp32, else :class:`InBF16`.

    Args:
        network: on its device.
        device: where it is.
        precision: out of :data:`INFERENCE`.

    Raises:
        ValueError: another name.
    """
    if chosen_precision(precision, device) == "fp32":
        return network
    return BranchesInBF16(network) if hasattr(network, "branches") else InBF16(network)


def chosen_precision(name: str, device: torch.device) -> str:
    """What ``name`` means on a device: "fp32" or "bf16".

    Args:
        name: out of :data:`INFERENCE`.
        device: that "auto" is about.

    Raises:
        ValueError: another name.

    >>> chosen_precision("bf16", torch.device("cpu"))
    'bf16'
    """
    if name not in INFERENCE:
        raise ValueError(f"Expected a precision out of {', '.join(INFERENCE)}, but got {name!r}.")
    if name != "auto":
        return name
    return "bf16" if is_made_for_bf16(device) else "fp32"


def is_made_for_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: GPUs from Ampere on, processors with AMX.

    A torch that cannot tell what the processor has counts as one without.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(features.get("amx_bf16", False))
