"""Mixed precision: on CUDA only, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast to ``precision`` on CUDA; nothing on the CPU, where it is slower and less exact.

    Args:
        device: where the network runs.
        precision: "fp32", "bf16" or "fp16".

    Raises:
        ValueError: another name.
    """
    if precision not in DTYPES:
        raise ValueError(f"Expected precision to be one of {', '.join(DTYPES)}, but got {precision!r}.")
    if device.type != "cuda" or precision == "fp32":
        return nullcontext()
    return torch.autocast("cuda", dtype=DTYPES[precision])


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Loss scaler, active for fp16 on CUDA only (bf16 has float32's range)."""
    return torch.amp.GradScaler(device.type, enabled=device.type == "cuda" and precision == "fp16")
