"""Export a trained network to files that need no code of this project, TorchScript and ONNX, reproducible bit for bit."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ct_cncl.pipeline.common.checkpoint_file import load_file, network_state
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.networks.branches import centre_slice
from ct_cncl.pipeline.networks.level import keep_level
from ct_cncl.pipeline.sharing.example_scan import write_example
from ct_cncl.pipeline.weights.load import Weights, open_weights
from ct_cncl.pipeline.weights.onnx import AXES, AXES_IN_WORDS, METADATA, OUTPUTS, open_onnx
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.hu import HU_RANGE

TOLERANCE_HU = 0.5
"""Largest allowed difference of an export from the network; in practice it is below 0.01 HU."""
_OPSET = 17
_PROBE = (71, 123)
"""Columns and rows of the image on which exports are compared: odd, so that it is padded, and of another size than in export."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ExportError(ValueError):
    """A network cannot be exported; the message is one line."""


def export_models(weights: Path, folder: Path, *, metadata: Mapping[str, Any], trust: bool = False) -> None:
    """Write ``model.pt`` (a plain state dict), ``model.ts``, ``model.onnx`` and the example with its result.

    This runs in a separate process, because the code inside a TorchScript file depends on the seed of Python's hashes and on
    what was scripted before.

    Args:
        weights: a run's checkpoint.
        folder: folder of the bundle; the files go into its ``models`` and ``example``.
        metadata: metadata of the bundle, which go into both exports with the checksum of ``model.pt`` under "weights".
        trust: import the user's own classes that the weights' config names.

    Raises:
        ExportError: the network cannot be exported, or its exports give different results.
    """
    command = [sys.executable, "-m", "ct_cncl.pipeline.sharing.export", str(weights.resolve()), str(folder.resolve())]
    command += ["--trust"] * trust
    done = subprocess.run(  # noqa: S603
        command,
        input=json.dumps(dict(metadata)),
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the process died."]
        raise ExportError(f"Expected to export {weights}, but got: {lines[-1]}")


def write_state(weights: Path, path: Path) -> None:
    """Write the network's weights of a checkpoint as a plain state dict, as MONAI's ``load`` and ``ckpt_export`` expect it."""
    state = {name: value.detach().clone() for name, value in network_state(load_file(weights)).items()}
    buffer = io.BytesIO()  # torch would store the name of a file inside it
    torch.save(state, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def write_torchscript(network: nn.Module, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a scripted network with its branches, axes as in ``AXES``, and metadata that ``load_net_with_metadata`` can read."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer, _extra_files={METADATA: _text(metadata)})
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(packed, "w") as target:
        for member in source.infolist():
            # Debugging files hold paths of this machine, and the serialization id is derived from them.
            if not member.filename.endswith((".debug_pkl", "/serialization_id")):
                target.writestr(zipfile.ZipInfo(member.filename, _EPOCH), source.read(member))
    with replacing(path) as temporary:
        temporary.write_bytes(packed.getvalue())


class _Padded(nn.Module):
    """The network with its padding as plain arithmetic, and its outputs in the order of ``OUTPUTS``.

    ``keep_level`` comes after the crop, as in the network, since it must not see the padded pixels.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.copy(network)
        self.multiple = int(getattr(network, "multiple", 1))
        self.level_sigma = float(getattr(network, "level_sigma", 0.0))
        if self.level_sigma > 0:
            self.network.level_sigma = 0.0  # type: ignore[assignment]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        columns, rows = image.shape[-2:]
        whole = image
        if self.multiple > 1:
            image = functional.pad(image, [0, -rows % self.multiple, 0, -columns % self.multiple], mode="reflect")
        if hasattr(self.network, "branches"):
            predicted = self.network.branches(image)  # type: ignore[operator]
            images: tuple[torch.Tensor, ...] = (predicted.fused, predicted.content, predicted.noise)
        else:
            images = (self.network(image),)
        result, *others = (one[..., :columns, :rows] for one in images)
        if self.level_sigma > 0:
            result = keep_level(centre_slice(whole), result, self.level_sigma)
        return (result, *others)


def write_onnx(network: nn.Module, path: Path, *, slices: int, metadata: Mapping[str, Any]) -> None:
    """Write the network as an ONNX graph with metadata, for any batch and 16 or more columns and rows; axes as in ``AXES``.

    Raises:
        ExportError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            "Expected the package onnx to write model.onnx, but it is not installed. Run `pip install 'ct-cncl[onnx]'`."
        ) from error
    names = OUTPUTS if hasattr(network, "branches") else OUTPUTS[:1]
    buffer = io.BytesIO()
    torch.onnx.export(
        _Padded(network).eval(),
        (torch.rand(2, slices, 70, 90),),
        buffer,  # type: ignore[arg-type]  # it also writes to streams
        input_names=["image"],
        output_names=list(names),
        dynamic_axes={name: {axis: AXES[axis] for axis in (0, 2, 3)} for name in ("image", *names)},
        opset_version=_OPSET,
        dynamo=False,  # the other exporter needs another package
    )
    model = onnx.load_from_string(buffer.getvalue())
    properties = {METADATA: _text(metadata), "axes": AXES_IN_WORDS, "multiple": str(getattr(network, "multiple", 1))}
    onnx.helper.set_model_props(model, properties)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def difference_hu(weights: Weights, other: nn.Module) -> float:
    """Largest difference between two networks on one random image of odd size, HU."""
    image = torch.rand(1, weights.slices, *_PROBE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return float((weights.network(image) - other(image)).abs().max()) * HU_RANGE


def _text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(dict(metadata), sort_keys=True)


def _export(path: Path, folder: Path, metadata: dict[str, Any], *, trust: bool) -> None:
    weights = open_weights(path, torch.device("cpu"), trust=trust)
    models = folder / "models"
    write_state(path, models / "model.pt")
    metadata["axes"] = AXES_IN_WORDS
    metadata["weights"] = metadata.get("weights", {}) | {"sha256": file_checksum(models / "model.pt")}
    write_torchscript(weights.network, models / "model.ts", metadata=metadata)
    write_onnx(weights.network, models / "model.onnx", slices=weights.slices, metadata=metadata)
    exports = {
        "model.ts": torch.jit.load(str(models / "model.ts")),
        "model.onnx": open_onnx(models / "model.onnx")[0],
    }
    for name, export in exports.items():
        far = difference_hu(weights, export)
        if far > TOLERANCE_HU:
            raise ExportError(f"{name} differs from the network by {far:.3g} HU. Use another predictor or fusion.")
    write_example(weights, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        _export(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.stdin.read()), trust="--trust" in sys.argv[3:])
    except (ExportError, CheckpointError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(1)
