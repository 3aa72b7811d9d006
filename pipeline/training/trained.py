"""Loading a trained network from its checkpoint, frozen, as a teacher for others."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ct_cncl.pipeline.common.checkpoint_file import load_weights, missing_checkpoint
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.pipeline.workflow.network import build_network
from ct_cncl.transforms.common.numbers import counted


def trained_network(checkpoint: str | Path | None, *, context_slices: int | None = None) -> nn.Module:
    """Load the network of a run with the weights of one of its checkpoints, on the CPU, in eval mode and without gradients.

    Args:
        checkpoint: the run's ``best.pt`` or ``last.pt``, with the run's config.json next to it.
        context_slices: number of slices that the network must take, since it gets its student's input; None for any.

    Raises:
        CheckpointError: the checkpoint is None, missing, unreadable or of another network.
        ConfigError: there is no config next to it, the config would run code, or the network takes another number of slices.
    """
    if checkpoint is None:
        raise CheckpointError(
            "Expected the checkpoint of a trained network, but got none. Name a run's best.pt (teacher_checkpoint=...)."
        )
    path = Path(checkpoint)
    if not path.is_file():
        raise missing_checkpoint(path)
    config = network_config(path)
    found = config.get("context_slices", 1)  # missing in runs of earlier versions
    if context_slices is not None and found != context_slices:
        raise ConfigError(
            f"Expected a teacher that takes {counted(context_slices, 'slice')} as its student does, but {path} takes {found}. Train with "
            f"context_slices={found}, or name another teacher_checkpoint."
        )
    return load_weights(build_network(config), path).eval().requires_grad_(False)
