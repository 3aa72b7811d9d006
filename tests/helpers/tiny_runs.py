"""Shared by tests of whole runs: the checkout's folder, a tiny pair, overrides that make training take a second."""

import json
import socket
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "ct"
"""Real CT, if the checkout has it."""
LOG_LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (INFO|WARNING|ERROR) - "
"""How every line of the log begins."""
TINY = {
    "network_def#content#width": 4,
    "network_def#content#depth": 2,
    "network_def#content#norm": "none",
    "network_def#noise#width": 4,
    "network_def#noise#depth": 2,
    "network_def#noise#norm": "none",
    "network_def#init_std": 0.1,
    "discriminator#channels": 4,
    "patches#size": 32,
    "patches#per_epoch": 8,
    "batch_size": 2,
    "max_epochs": 2,
}
"""Overrides of train.json: no batch norm, deterministic."""
_UNET = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 4, "depth": 2, "norm": "none"}
TINY_NETWORK = {
    "network_def": {
        "_target_": "ct_cncl.pipeline.networks.CNCL",
        "content": _UNET,
        "noise": _UNET,
        "fusion": {"_target_": "ct_cncl.pipeline.networks.ConvFusion", "kernel_size": 1},
        "init_std": 0.1,
    },
}
"""Overrides of inference.json: the network of a run with ``TINY``."""


def tiny_case(number: int, shape: tuple[int, int, int] = (48, 40, 2)):
    """A smooth soft-tissue volume, and the same volume with 40 HU of noise."""
    from ct_cncl.transforms.dataset.simulated_cases import Case, Pair

    def make() -> Pair:
        rng = np.random.default_rng(number)
        label = np.clip(rng.normal(0, 60, shape).cumsum(0).cumsum(1) / 12, -900, 900).astype(np.float32)
        image = label + rng.normal(0, 40, shape).astype(np.float32)
        return Pair(image, label, np.diag([-0.7, -0.7, 5.0, 1.0]), {"reference": "test"})

    return Case(f"patient-{number}", f"scan{number}.nii.gz", 0.25, make)


def assignments(overrides: dict) -> list[str]:
    """Overrides as KEY=VALUE arguments."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]


def fire_arguments(overrides: dict) -> list[str]:
    """Overrides as ``--key value`` arguments of monai.bundle."""
    return [part for key, value in overrides.items() for part in (f"--{key}", str(value))]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def same(a, b) -> bool:
    """Whether two checkpoints are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b
