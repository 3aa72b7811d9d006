"""Mixed precision, by name: on CUDA, and on processors that multiply bfloat16 matrices where it is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bf16_any": torch.bfloat16,
}
"""By name; "bf16_any" is bf16 on the CPU, too: two to four times as fast on processors with AMX, slower on others."""


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
