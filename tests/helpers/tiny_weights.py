"""Weights that need no training: an identity, a known change, a tiny CNCL, in the file formats of denoise."""

import json
from pathlib import Path

import torch
from torch import nn

from ct_cncl.pipeline.networks import CNCL, ConvFusion, UNet

UNET = {"_target_": "ct_cncl.pipeline.networks.UNet", "width": 4, "depth": 2, "norm": "none"}


class Add(nn.Module):
    """Adds a number of HU; of several slices, to the centre one."""

    def __init__(self, hu: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("change", torch.tensor(hu / 4096))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.change


class MeanOfThree(nn.Module):
    """The mean of three neighbouring slices with weights 1, 2, 5 from the first, which shows whether their order is right."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, 0:1] + 2 * image[:, 1:2] + 5 * image[:, 2:3]) / 8


class Steps(torch.nn.Module):
    """Adds -4 to 3.5 HU in steps of 0.5 HU along the columns: halves test rounding, and both ends test clipping."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", (torch.arange(512).view(-1, 1) * 0.5 - 4) / 4096, persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.steps[: image.shape[-2]]


def scripted(network: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.script(network.eval()), str(path))
    return path


def tiny_cncl(folder: Path, *, slices: int = 1, seed: int = 0) -> tuple[Path, CNCL]:
    """A run's best.pt and config.json of a tiny CNCL with random weights, and the network itself."""
    torch.manual_seed(seed)
    options = {"width": 4, "depth": 2, "norm": "none", "in_channels": slices}
    network = CNCL(content=UNet(**options), noise=UNet(**options), fusion=ConvFusion(), init_std=0.1).eval()
    config = {
        "network_def": {
            "_target_": "ct_cncl.pipeline.networks.CNCL",
            "content": UNET | {"in_channels": slices},
            "noise": UNET | {"in_channels": slices},
            "fusion": {"_target_": "ct_cncl.pipeline.networks.ConvFusion"},
            "init_std": 0.1,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"network_def": network.state_dict()}, folder / "best.pt")
    return folder / "best.pt", network
