"""A trained network as a teacher or a starting point for others: from its checkpoint alone, frozen."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import load_weights, missing_checkpoint
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.pipeline.workflow.network import build_network


def trained_network(checkpoint: str | Path | None, *, context_slices: int | None = None) -> nn.Module:
    """The network of a run with the weights of one of its checkpoints, on the CPU, in eval mode, without gradients.

    Args:
        checkpoint: the run's ``best.pt`` or ``last.pt``, with the run's config.json next to it.
        context_slices: that it must take, since a student's input is what it is given; None takes any.

    Raises:
        CheckpointError: none named, missing, unreadable or of another network.
        ConfigError: no config next to it, one that would run code, or a network that takes another number of slices.
    """
    if checkpoint is None:
        raise CheckpointError(
            "Expected the checkpoint of a trained network, but got none. Name a run's best.pt (teacher_checkpoint=...)."
        )
    path = Path(checkpoint)
    if not path.is_file():
        raise missing_checkpoint(path)
    config = network_config(path)
    found = config.get("context_slices", 1)  # not in runs of earlier versions
    if context_slices is not None and found != context_slices:
        raise ConfigError(
            f"Expected a teacher that takes {context_slices} slices as its student does, but {path} takes {found}. Train with "
            f"context_slices={found}, or name another teacher_checkpoint."
        )
    return load_weights(build_network(config), path).eval().requires_grad_(False)
