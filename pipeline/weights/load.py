"""Load weights for denoising: a checkpoint with its network's definition, a TorchScript or ONNX file, or the bundle's own."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import first_line, load_weights, missing_checkpoint
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.networks import Branches
from ct_cncl.pipeline.networks.precision import chosen_precision, in_precision
from ct_cncl.pipeline.weights.torchscript_archive import judge_torchscript
from ct_cncl.pipeline.weights.torchscript_operators import REACHES_FILES
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.pipeline.workflow.network import build_network
from ct_cncl.pipeline.workflow.own_code import build_trusted, own_targets, trusted_code
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.torch_archives import ArchiveError

TRAINED_ON_KEY = "trained_on"
"""Name of the description of the training data: ``trained_on.json`` next to a checkpoint, or a key of a bundle's metadata."""
_MOST_SLICES = 7


@dataclass(frozen=True, eq=False)
class Weights:
    """A network ready to denoise.

    Attributes:
        network: the network on its device, in evaluation mode; it maps (B, slices, H, W) to (B, 1, H, W) in network units.
        device: device of the network.
        checksum: SHA-256 of the file.
        slices: number of neighbouring slices that it takes, odd.
        trained_on: known properties of its training data; empty if none are known.
        precision: precision in which it computes, "fp32" or "bf16".
        own_threads: whether it uses its own threads (ONNX Runtime) instead of torch's.
    """

    network: nn.Module
    device: torch.device
    checksum: str
    slices: int = 1
    trained_on: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    own_threads: bool = False

    @property
    def has_branches(self) -> bool:
        """Whether the network also gives content and noise."""
        return hasattr(self.network, "branches")

    def branches(self, image: torch.Tensor) -> Branches:
        """All estimates for ``image`` (B, slices, H, W), network units."""
        return Branches(*self.network.branches(image))  # type: ignore[operator]


def open_weights(
    path: str | Path | None, device: torch.device, *, precision: str = "fp32", trust: bool = False
) -> Weights:
    """Load weights and the network to which they belong.

    Args:
        path: a run's checkpoint, with the run's config.json next to it; a bundle's models/model.pt; a TorchScript (.ts) or ONNX
            (.onnx) file; None for the bundle's own.
        device: device to run on.
        precision: "fp32", "bf16" or "auto", see :func:`~ct_cncl.pipeline.networks.precision.chosen_precision`.
        trust: load a TorchScript file as it is, and import the classes that a run's config names, whatever their code may do to
            this machine. Without trust, only the arithmetic of a network is allowed.

    Raises:
        CheckpointError: the file is missing, damaged or of another network; it is ONNX and bf16 is asked for; or it is
            TorchScript that does more than compute.
        ConfigError: there is no config next to the weights, or one that would run code.
        ValueError: the precision is unknown.
    """
    path = _own_weights() if path is None else Path(path)
    if not path.is_file():
        raise missing_checkpoint(path)
    chosen = _precision(precision, device, path)
    network, described = _opened(path, trust=trust)
    network = network.to(device).eval()
    slices = _slices(network, device, path)
    network = in_precision(network, device=device, precision=chosen).eval()
    trained_on = described_training(path) or described.get(TRAINED_ON_KEY) or {}
    return Weights(network, device, file_checksum(path), slices, trained_on, chosen, own_threads=path.suffix == ".onnx")


def _precision(name: str, device: torch.device, path: Path) -> str:
    """The precision that ``name`` means for these weights: "fp32" or "bf16"."""
    chosen = chosen_precision(name, device)
    if path.suffix != ".onnx":
        return chosen
    if name == "bf16":
        raise CheckpointError(
            f"Expected fp32 for {path}, since the ONNX file determines the precision, but got bf16. Use the .pt or .ts file, or "
            "--precision fp32."
        )
    return "fp32"


def _own_weights() -> Path:
    folder = installed_bundle() / "models"
    for name in ("model.pt", "model.ts"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        "Expected --weights, since this version ships none, but got none. Train first: `ct-cncl train`, then pass RUN/best.pt."
    )


def _opened(path: Path, *, trust: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and the bundle's metadata if an exported file holds them."""
    if path.suffix == ".ts":
        return _trusted(path) if trust else _scripted(path)
    if path.suffix == ".onnx":
        from ct_cncl.pipeline.weights.onnx import open_onnx

        return open_onnx(path)
    return built_network(path, trust=trust), {}


def built_network(path: Path, *, trust: bool = False) -> nn.Module:
    """Build the network of a checkpoint from the definition next to it, and load its weights.

    Args:
        path: path of the checkpoint.
        trust: import and run classes that are not part of this project.

    Raises:
        CheckpointError: the checkpoint is damaged or of another network.
        ConfigError: there is no definition, or one that would run untrusted code.
    """
    config = network_config(path, trust=trust)
    try:
        network = build_trusted(config, path) if trust and own_targets(config) else build_network(config)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"Expected the network of {path} to be buildable, but got: {error}.") from error
    return load_weights(network, path)


def imports_of(path: Path) -> list[str]:
    """One line on the classes that trust in a checkpoint imports and runs; empty if there are none.

    There are none if the network is part of this project, or is in the file itself.

    Raises:
        ConfigError: there is no config next to the checkpoint.
    """
    if path.suffix in (".ts", ".onnx") or not path.is_file():
        return []
    names = own_targets(network_config(path, trust=True))
    where = trusted_code(path)
    return (
        [f"trusted, and now imported and run: {', '.join(names)} ({where or 'wherever Python finds it'})"]
        if names
        else []
    )


def _scripted(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A TorchScript module, and the bundle's metadata if MONAI's ckpt_export put them into the file.

    Loading alone runs code of the file, so the file is judged first; torch then reads what was judged, not the file.
    """
    try:
        judged = judge_torchscript(path)
    except ArchiveError as error:
        raise CheckpointError(f"Expected a TorchScript file in {path}, but it {error}. Export it again.") from error
    if judged.doubts:
        raise CheckpointError(
            f"Expected a TorchScript file that does nothing but compute, but {path} {_said(judged.doubts)}. Do not use it; ask for "
            "the .pt file, or run `ct-cncl denoise --trust` if you trust its author."
        )
    return _loaded(path, io.BytesIO(judged.rebuilt())), _metadata(path, judged.metadata)


def _said(doubts: list[str]) -> str:
    files = [text for text in doubts if text.rpartition(".")[2] in REACHES_FILES]
    if files:
        return f"calls {', '.join(files)}, which can reach files"
    more = f" and {len(doubts) - 3} other things" if len(doubts) > 3 else ""
    return f"holds {', '.join(doubts[:3])}{more}, which no network needs"


def _trusted(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    inside = {"metadata.json": ""}
    network = _loaded(path, str(path), inside)
    return network, _metadata(path, inside["metadata.json"])


def _loaded(path: Path, source: Any, inside: dict[str, Any] | None = None) -> nn.Module:
    try:
        return torch.jit.load(source, map_location="cpu", _extra_files=inside)
    except Exception as error:  # torch raises several kinds of errors for files that are not its archives
        raise CheckpointError(
            f"Expected a TorchScript file in {path}, but got: {first_line(error)} Export it again."
        ) from error


def _metadata(path: Path, text: str | bytes) -> dict[str, Any]:
    """The bundle's metadata inside an exported file."""
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Expected JSON in the metadata inside {path}, but got: {first_line(error)}. Export it again."
        ) from error
    return content if isinstance(content, dict) else {}


def described_training(path: Path) -> dict[str, Any]:
    """The description of the training data next to weights: ``trained_on.json``, or a key of a bundle's metadata; or empty.

    Raises:
        ConfigError: the file is not JSON, or holds something else.
    """
    for file, key in (
        (path.parent / f"{TRAINED_ON_KEY}.json", ""),
        (path.parent.parent / "configs/metadata.json", TRAINED_ON_KEY),
    ):
        if file.is_file():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise ConfigError(f"Expected JSON in {file}, but got: {first_line(error)}.") from error
            if not isinstance(content, dict):
                raise ConfigError(
                    f"Expected a JSON object that describes the training data in {file}, but got other JSON. Write it again."
                )
            found = content.get(key, {}) if key else content
            if not isinstance(found, dict):
                raise ConfigError(
                    f"Expected a JSON object under {key!r} in {file}, but got other JSON. Write it again."
                )
            if found:
                return dict(found)
    return {}


def _slices(network: nn.Module, device: torch.device, path: Path) -> int:
    """Number of slices that the network takes: the first odd number that it accepts."""
    first_error: BaseException | None = None
    for slices in range(1, _MOST_SLICES + 1, 2):
        try:
            with torch.inference_mode():
                result = network(torch.zeros(1, slices, 64, 64, device=device))
        except (RuntimeError, ValueError, IndexError) as error:
            first_error = first_error or error
            continue
        if tuple(result.shape) == (1, 1, 64, 64):
            return slices
    reason = first_line(first_error).rstrip(".") if first_error and str(first_error) else ""
    why = f": {reason}" if reason else ""
    raise CheckpointError(
        f"Expected a network in {path} that maps (B, slices, 64, 64) to (B, 1, 64, 64), but it does not{why}. Name CNCL weights."
    )
