"""Preparing a generator for training: device, memory format, compilation, and recomputing activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ct_cncl.pipeline.common.distributed import data_parallel
from ct_cncl.pipeline.networks import BranchOutputs
from ct_cncl.pipeline.networks.blocks import NAFBlock, ResidualBlock, RestormerBlock
from ct_cncl.pipeline.networks.interaction import CrossAttentionBlock, SelfAttentionBlock
from ct_cncl.pipeline.networks.srdensenet import DenseBlock
from ct_cncl.pipeline.networks.unet import ConvPair, UpBlock

BLOCKS = (
    ConvPair,
    UpBlock,
    ResidualBlock,
    NAFBlock,
    RestormerBlock,
    DenseBlock,
    SelfAttentionBlock,
    CrossAttentionBlock,
)
"""Blocks that are recomputed as a whole; if they are nested, the outermost."""


def prepared_network(
    network: nn.Module,
    device: torch.device,
    *,
    channels_last: bool = False,
    recompute_activations: bool = False,
    compiled: bool = False,
) -> BranchOutputs:
    """Prepare a network for a trainer. The network is changed in place.

    Args:
        network: a ``CNCL``, or a network with one output.
        device: device to train on.
        channels_last: store weights, and thereby feature maps, with the channels innermost, which is faster on tensor cores.
        recompute_activations: see :func:`recompute_blocks`.
        compiled: let torch.compile fuse the operations between convolutions; once per run, this takes minutes and needs a C++ compiler.

    Raises:
        ValueError: ``recompute_activations`` is set, but the network has no blocks.
    """
    network.to(device)
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recompute_activations:
        recompute_blocks(network)
    module = BranchOutputs(network)
    if compiled:
        module.compile()
    return module


def training_generator(
    network: nn.Module,
    device: torch.device,
    *,
    channels_last: bool = False,
    recompute_activations: bool = False,
    compiled: bool = False,
) -> nn.Module:
    """Prepare a network as :func:`prepared_network` does, with the same arguments, and wrap it if there are several processes."""
    prepared = prepared_network(
        network,
        device,
        channels_last=channels_last,
        recompute_activations=recompute_activations,
        compiled=compiled,
    )
    generator = data_parallel(prepared, device)
    assert generator is not None
    return generator


def recompute_blocks(network: nn.Module) -> None:
    """Keep only the inputs of a network's blocks for the backward pass, and recompute the activations inside them there.

    A training step takes about a third longer and needs a fraction of the memory. Gradients and running statistics are the same.

    Args:
        network: the network, changed in place. Its state dict does not change.

    Raises:
        ValueError: the network has none of :data:`BLOCKS`.
    """
    blocks = list(_outermost_blocks(network))
    if not blocks:
        raise ValueError(
            f"Expected a network of blocks for recompute_activations, but {type(network).__name__} has none of "
            f"{', '.join(kind.__name__ for kind in BLOCKS)}. Set it to false, and raise accumulate to save memory."
        )
    for block in blocks:
        contexts = partial(_contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def _outermost_blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, BLOCKS):
            yield child
        else:
            yield from _outermost_blocks(child)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), frozen_statistics(block)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Freeze the running statistics of batch normalisation while the same batch passes a second time. It still normalises by the batch."""
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, counted
