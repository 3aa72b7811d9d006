"""VGG-19 in torchvision's format, without a need for torchvision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed

from ct_cncl.pipeline.common.checkpoint_file import load_file
from ct_cncl.pipeline.common.distributed import is_main_process, start_processes, world_size
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.losses.encoders.stages import ConvStages
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.hu import WINDOWS, Window, apply_window, to_hu

URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's weights, trained on ImageNet; BSD-3-Clause. 575 MB, of which the convolutions are 80 MB."""
SHA256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours, scaled to 0 ... 1, with which those weights were trained."""


def cached_file() -> Path:
    """Path of the downloaded weights in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ct-cncl" / Path(URL).name


def published_weights() -> Path:
    """The file of published weights, which is downloaded into the cache once; its SHA-256 is checked every time.

    Of several processes, the first one downloads and the others wait.

    Raises:
        CheckpointError: there is no network, or the file has another checksum; the message says how to provide it.
    """
    path = cached_file()
    if is_main_process() and not path.is_file():
        _download(path)
    if world_size() > 1:
        start_processes()
        distributed.barrier()
    found = file_checksum(path)
    if found != SHA256:
        raise CheckpointError(
            f"Expected {path} to have the SHA-256 {SHA256}, but got {found}. Delete it, so that it is downloaded again."
        )
    return path


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
    except (OSError, RuntimeError) as error:  # no network, or another checksum
        raise CheckpointError(
            f"Expected VGG-19's weights in {path} or from {URL}, but the download failed: {error}. Download the file on a "
            "machine with network access, then copy it to that path or name it with texture.encoder.weights=FILE."
        ) from error


class VGG19(ConvStages):
    """The convolutions of VGG-19 (Simonyan and Zisserman, ICLR 2015) with torchvision's ImageNet weights.

    Its input is the window's grey levels, 0 to 1, in three equal channels, minus ImageNet's mean colour, divided by its
    standard deviation. Values outside the window are black or white, as on a display, and have no gradient.

    On 64 x 64 patches ``conv5_x`` is only 4 x 4, so textures need the shallow layers.

    Args:
        weights: file in the format of torchvision's state dict; None takes the published weights, see ``published_weights``.
        window: name of a window (``ct_cncl.transforms.common.hu.WINDOWS``), or its centre and width in HU.

    Raises:
        CheckpointError: the file is missing, unreadable or of another network.
        ValueError: the window is unknown.
    """

    def __init__(self, *, weights: str | Path | None = None, window: str | Sequence[float] = "abdomen") -> None:
        super().__init__((64, 128, 256, 512, 512), (2, 2, 4, 4, 4), in_channels=3)
        if isinstance(window, str) and window not in WINDOWS:
            raise ValueError(
                f"Expected window to be one of {', '.join(WINDOWS)}, or centre and width in HU, but got {window!r}."
            )
        if isinstance(window, str):
            self.window = WINDOWS[window]
        elif isinstance(window, Sequence) and len(window) == 2 and float(window[1]) > 0:
            self.window = Window(float(window[0]), float(window[1]))
        else:
            raise ValueError(
                f"Expected window to be a name, or centre and width in HU ([50, 400]), but got {window!r}."
            )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(STANDARD_DEVIATION).view(1, 3, 1, 1), persistent=False)
        path = published_weights() if weights is None else Path(weights)
        if not path.is_file():
            raise CheckpointError(
                f"Expected VGG-19's weights in {path}, but there is no such file. Download {URL} and name it with "
                "texture.encoder.weights=FILE, or leave that out to have it downloaded."
            )
        self._load(load_file(path), path)

    def _load(self, content: dict[str, torch.Tensor], path: Path) -> None:
        state = {name: value for name, value in content.items() if name.startswith("features.")}
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"Expected {path} to hold VGG-19 in the format of torchvision's state dict, but it does not fit: "
                f"{' '.join(str(error).split())[:200]}. Download {URL}."
            ) from error

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Convert (B, 1, H, W), network units, to ImageNet's normalised colours (B, 3, H, W)."""
        grey = apply_window(to_hu(image), self.window)
        return (grey - self.mean) / self.deviation  # type: ignore[operator]
