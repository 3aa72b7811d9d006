"""What files of weights would run besides arithmetic, found without unpickling or loading them."""

from __future__ import annotations

from pathlib import Path

from ct_cncl.pipeline.common.checkpoint_file import first_line
from ct_cncl.pipeline.common.finding import Finding
from ct_cncl.pipeline.weights.torchscript_archive import judge_torchscript
from ct_cncl.transforms.common.torch_archives import ArchiveError, check_archive


def review_weights(path: Path, name: str) -> list[Finding]:
    """What weights would run; nothing for a suffix that is none of weights.

    Args:
        path: a file; ``.pt``, ``.ts`` and ``.onnx`` are looked into.
        name: what to call it.
    """
    return REVIEWS[path.suffix](path, name) if path.suffix in REVIEWS else []


def _pickle(path: Path, name: str) -> list[Finding]:
    """Functions that a checkpoint's pickle would call and torch's ``weights_only`` loader would refuse."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        check_archive(path)
        unsafe = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # another format than torch's zip: nothing that torch has written since 2020
        return [Finding(name, "", "pickle", f"cannot be read: {first_line(error)}", known=False)]
    return [Finding(name, "", "pickle", text, known=False) for text in unsafe]


def _torchscript(path: Path, name: str) -> list[Finding]:
    try:
        return [Finding(name, "", "TorchScript", text, known=False) for text in judge_torchscript(path).doubts]
    except ArchiveError as error:
        return [Finding(name, "", "TorchScript", str(error), known=False)]


def _onnx(path: Path, name: str) -> list[Finding]:
    """A graph that names other files or operators of its own; without the package onnx, only that it was not looked into."""
    try:
        import onnx
    except ImportError:
        return [Finding(name, "", "ONNX", "not looked into: install the extra onnx", known=True)]
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own kinds
        return [Finding(name, "", "ONNX", f"cannot be read: {type(error).__name__}", known=False)]
    others = {one.domain for one in model.opset_import} - {"", "ai.onnx"}
    outside = {t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    found = [Finding(name, "", "ONNX", f"operators of {domain}", known=False) for domain in sorted(others)]
    return found + [Finding(name, "", "ONNX", f"{text} in another file", known=False) for text in sorted(outside)]


REVIEWS = {".pt": _pickle, ".ts": _torchscript, ".onnx": _onnx}
