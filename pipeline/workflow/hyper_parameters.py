"""What a run was set to, for TensorBoard's page of hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

HPARAM_SCORES = ("psnr", "ssim", "rmse", "validation_loss")
"""Validation figures that stand beside the hyper-parameters."""
_MACHINERY = ("imports", "bundle_root", "output_dir", "resume", "train", "validate", "initialize", "run", "training")
"""Keys of a training config that say how it is run, not what is trained."""


def write_hyper_parameters(writer: SummaryWriter, config: Mapping[str, Any]) -> None:
    """Put a run's hyper-parameters into its TensorBoard events, where runs can be compared by them.

    By hand: ``SummaryWriter.add_hparams`` makes a run of its own for them, in a folder below.

    Args:
        writer: of the run.
        config: merged, with overrides.
    """
    assert writer.file_writer is not None
    for summary in hparams(hyper_parameters(config), dict.fromkeys(HPARAM_SCORES, 0.0))[:2]:
        writer.file_writer.add_summary(summary)


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Every number, switch and name of a config that is about what is trained, by its key as users write it.

    Expressions and references are left out, and so is null. A list is one text.

    >>> hyper_parameters({"batch_size": 2, "device": "$default_device()", "patches": {"size": 64, "dose_range": [0.1, 1]}, "run": ["$x"]})
    {'batch_size': 2, 'patches.size': 64, 'patches.dose_range': '[0.1, 1]'}
    """
    return {key: value for name in config if name not in _MACHINERY for key, value in _values(name, config[name])}


def _values(key: str, node: Any) -> Iterator[tuple[str, bool | int | float | str]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _values(f"{key}.{name}", value)
    elif isinstance(node, (bool, int, float)) or (isinstance(node, str) and not node.startswith(("$", "@", "%"))):
        yield key, node
    elif isinstance(node, list):
        yield key, str(node)
