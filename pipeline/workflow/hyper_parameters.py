"""A run's settings, for TensorBoard's hyperparameter page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

HPARAM_SCORES = ("psnr", "ssim", "rmse", "validation_loss")
"""Validation figures shown next to the hyperparameters."""
_MACHINERY = ("imports", "bundle_root", "output_dir", "resume", "train", "validate", "initialize", "run", "training")
"""Keys of a training config that say how to run it, not what is trained."""


def write_hyper_parameters(writer: SummaryWriter, config: Mapping[str, Any]) -> None:
    """Write a run's hyperparameters into its TensorBoard events, so that runs can be compared by them.

    This does not use ``SummaryWriter.add_hparams``, which would create a separate run in a subfolder.

    Args:
        writer: the run's writer.
        config: the merged config, with overrides.
    """
    assert writer.file_writer is not None
    for summary in hparams(hyper_parameters(config), dict.fromkeys(HPARAM_SCORES, 0.0))[:2]:
        writer.file_writer.add_summary(summary)


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """All numbers, switches and names in a config that define what is trained, by their keys as users write them.

    Expressions, references and null are omitted. A list becomes one string.

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
