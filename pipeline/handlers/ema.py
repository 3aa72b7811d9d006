"""An exponential moving average of the generator's weights: the network that is validated and shipped.

It does not use ignite's EMAHandler, which restarts its warm-up in every process, so that a resumed run would end with
different weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn


def warmed_up(decay: float, step: int) -> float:
    """``min(decay, step / (step + 9))``: early averages span about the last tenth of the training, not its random start.

    Args:
        decay: decay in the long run.
        step: number of steps taken, from 1 on.

    >>> [round(warmed_up(0.999, step), 3) for step in (1, 91, 9_000_000)]
    [0.1, 0.91, 0.999]
    """
    return min(decay, step / (step + 9))


class EMA:
    """Keeps ``average <- d * average + (1 - d) * weights`` after each iteration, with d = ``warmed_up(decay, iteration)``.

    Running statistics of normalisations are averaged as well; integers are copied.

    Args:
        network: the generator, without wrappers.
        decay: 0.999 averages over about 1000 iterations; None keeps no average and uses the generator itself.

    Raises:
        ValueError: the decay is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, *, decay: float | None = None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"Expected a decay between 0 and 1, or null, but got {decay}.")
        self.source = network
        self.decay = decay
        self.network = network if decay is None else copy.deepcopy(network).eval().requires_grad_(False)

    def shipped(self) -> nn.Module:
        """The network that is validated and shipped: the average, or the generator itself if none is kept."""
        return self.network

    def teacher(self) -> nn.Module:
        """The averaged network.

        Raises:
            ValueError: no average is kept.
        """
        if self.decay is None:
            raise ValueError("Expected an average of the weights, but none is kept. Set ema.decay, for example 0.999.")
        return self.network

    def attach(self, engine: Engine) -> None:
        """Follow every iteration."""
        if self.decay is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        assert self.decay is not None
        share = 1.0 - warmed_up(self.decay, engine.state.iteration)
        # Not the state dicts: they list a weight that two branches share twice.
        pairs = list(zip(_tensors(self.network), _tensors(self.source), strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [mean for mean, _ in numbers], [own for _, own in numbers], share
        )  # one kernel, not hundreds
        for mean, own in pairs:
            if not mean.is_floating_point():
                mean.copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """Weights of the average; empty if none is kept."""
        return {} if self.decay is None else self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore an average.

        Raises:
            RuntimeError: the average is of another network, or only one of this run and the saved one keeps an average.
        """
        if self.decay is not None:
            self.network.load_state_dict(state)
        elif state:
            raise RuntimeError("the checkpoint holds an average of the weights, but ema.decay is null here")


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
