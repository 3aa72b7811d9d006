"""What files of weights would run besides arithmetic; they are neither unpickled nor loaded for this."""

from __future__ import annotations

from pathlib import Path

from ct_cncl.pipeline.common.checkpoint_file import first_line
from ct_cncl.pipeline.common.finding import Finding
from ct_cncl.pipeline.weights.torchscript_archive import judge_torchscript
from ct_cncl.transforms.common.torch_archives import ArchiveError, check_archive


def review_weights(path: Path, name: str) -> list[Finding]:
    """List what a file of weights would run; the list is empty for files with another suffix.

    Args:
        path: a file; ``.pt``, ``.ts`` and ``.onnx`` files are inspected.
        name: name of the file in the findings.
    """
    return REVIEWS[path.suffix](path, name) if path.suffix in REVIEWS else []


def _pickle(path: Path, name: str) -> list[Finding]:
    """Functions that a checkpoint's pickle would call, and that torch's ``weights_only`` loader refuses."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        check_archive(path)
        unsafe = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # not torch's zip format, which torch has written since 2020
        return [Finding(name, "", "pickle", f"cannot be read: {first_line(error)}", known=False)]
    return [Finding(name, "", "pickle", text, known=False) for text in unsafe]


def _torchscript(path: Path, name: str) -> list[Finding]:
    try:
        return [Finding(name, "", "TorchScript", text, known=False) for text in judge_torchscript(path).doubts]
    except ArchiveError as error:
        return [Finding(name, "", "TorchScript", str(error), known=False)]


def _onnx(path: Path, name: str) -> list[Finding]:
    """Other files and custom operators that a graph names; without the package onnx, only a note that it was not inspected."""
    try:
        import onnx
    except ImportError:
        return [Finding(name, "", "ONNX", "not inspected: install the extra onnx", known=True)]
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        return [Finding(name, "", "ONNX", f"cannot be read: {type(error).__name__}", known=False)]
    others = {one.domain for one in model.opset_import} - {"", "ai.onnx"}
    outside = {t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    found = [Finding(name, "", "ONNX", f"custom operators of {domain}", known=False) for domain in sorted(others)]
    return found + [Finding(name, "", "ONNX", f"{text} in another file", known=False) for text in sorted(outside)]


REVIEWS = {".pt": _pickle, ".ts": _torchscript, ".onnx": _onnx}
