"""Weights as an ONNX file, which holds no config and no Python code and is run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.networks import Branches
from ct_cncl.pipeline.networks.branches import pad_to_multiple

OUTPUTS = ("result", "content", "noise")
"""Output names of an exported network, each (batch, 1, columns, rows) in network units; without branches, only the first."""
AXES = ("batch", "slices", "columns", "rows")
"""Axes of an image in every network and every export here; pydicom's ``pixel_array`` is (rows, columns)."""
AXES_IN_WORDS = (
    "(batch, slices, columns, rows): columns towards the patient's left, rows towards the back in axial slices; of several slices "
    "towards the head; a pixel_array of pydicom, (rows, columns), goes in transposed"
)
METADATA = "metadata.json"
"""Name of the bundle's metadata inside an exported file."""


class OnnxNetwork(nn.Module):
    """An ONNX graph as a module, computed on the CPU: (batch, slices, columns, rows) to (batch, 1, columns, rows), network units.

    Args:
        session: an ``onnxruntime.InferenceSession`` with the input "image" and the outputs ``OUTPUTS``.
        multiple: number to a multiple of which the graph itself pads the sides. It cannot pad images with a side below twice
            that number; this module pads them first.
    """

    def __init__(self, session: Any, *, multiple: int) -> None:
        super().__init__()
        self.session = session
        self.multiple = multiple

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The result for ``image`` (batch, slices, columns, rows)."""
        return self.outputs(image, OUTPUTS[:1])[0]

    def outputs(self, image: torch.Tensor, names: tuple[str, ...]) -> list[torch.Tensor]:
        """The outputs ``names`` for ``image``, on its device.

        Raises:
            RuntimeError: the graph does not accept the image.
        """
        columns, rows = image.shape[-2:]
        padded = image.float().cpu()
        if min(columns, rows) < 2 * self.multiple:
            padded = pad_to_multiple(padded, self.multiple)
        try:
            found = self.session.run(list(names), {"image": padded.numpy()})
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise RuntimeError(str(error)) from error
        return [torch.from_numpy(array[..., :columns, :rows]).to(image.device) for array in found]


class OnnxBranches(OnnxNetwork):
    """An ONNX graph that also gives content and noise."""

    def branches(self, image: torch.Tensor) -> Branches:
        """All estimates for ``image`` (batch, slices, columns, rows)."""
        fused, content, noise = self.outputs(image, OUTPUTS)
        return Branches(content, noise, fused)


def open_onnx(path: Path, *, threads: int | None = None) -> tuple[OnnxNetwork, dict[str, Any]]:
    """Open the network in an ONNX file, and the bundle's metadata if the file holds them.

    Args:
        path: file that ``ct-cncl pack`` wrote, or one with the same names of input and outputs.
        threads: threads of ONNX Runtime; None takes torch's number.

    Raises:
        CheckpointError: ONNX Runtime is not installed, or the file is not an ONNX file or has other inputs and outputs.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(
            f"Expected ONNX Runtime to run {path}, but it is not installed. Run `pip install 'ct-cncl[onnx]'`, or use the .ts or "
            ".pt file."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # fatal only: errors are raised as well, and reported in one line
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"Expected an ONNX file in {path}, but got: {first} Export it again.") from error
    inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    if inputs != ["image"] or tuple(outputs) not in (OUTPUTS, OUTPUTS[:1]):
        raise CheckpointError(
            f"Expected the input image and the outputs {', '.join(OUTPUTS)} in {path}, but got {', '.join(inputs)} and "
            f"{', '.join(outputs)}. Export it with `ct-cncl pack`."
        )
    properties = session.get_modelmeta().custom_metadata_map
    kind = OnnxBranches if len(outputs) > 1 else OnnxNetwork
    try:
        multiple, metadata = int(properties.get("multiple", 1)), json.loads(properties.get(METADATA) or "{}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Expected JSON in the metadata of {path}, but got: {error}. Export it again.") from error
    if multiple < 1 or not isinstance(metadata, dict):
        raise CheckpointError(
            f"Expected the metadata in {path} in the form that `ct-cncl pack` writes, but got another. Export it again."
        )
    return kind(session, multiple=multiple), metadata
