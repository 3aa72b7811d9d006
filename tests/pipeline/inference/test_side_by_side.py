"""How many slices go through a network at once, and by how many threads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_weights import Add, scripted

from ct_cncl.pipeline.inference.streaming import Settings, apply_network, batch_for
from ct_cncl.pipeline.weights.load import Weights, open_weights

CPU = torch.device("cpu")


def test_batches_suit_the_device(tmp_path):
    weights = open_weights(scripted(Add(0.0), tmp_path / "a.ts"), CPU)
    assert batch_for(weights, (512, 512), Settings(batch_size=7)) == 7
    threads = torch.get_num_threads()
    try:
        for asked, expected in ((1, 2), (2, 2), (5, 5), (64, 8)):
            torch.set_num_threads(asked)
            assert batch_for(weights, (512, 512), Settings()) == expected
    finally:
        torch.set_num_threads(threads)


class Threads(torch.nn.Module):
    """Adds to each image how many threads torch has where it is computed, in HU."""

    def forward(self, image):
        return image + torch.get_num_threads() / 4096


def test_slices_are_denoised_side_by_side_each_by_its_share_of_the_threads(monkeypatch):
    """Where torch has one thread, or there is one slice, in torch's own; the number of threads is as it was before."""
    stack = np.random.default_rng(0).integers(-1000, 300, (5, 1, 16, 12)).astype(np.float32)
    weights = Weights(Threads().eval(), CPU, "")

    def threads_of(weights, stack):
        added = apply_network(weights, stack, Settings())["denoised"] - stack[:, 0]
        return added.mean(axis=(1, 2)).round().tolist()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert threads_of(weights, stack) == [1] * 5
        with ThreadPoolExecutor(1) as later:  # a thread that starts afterwards takes what torch was told last
            assert later.submit(threads_of, weights, stack[:1]).result() == [3]
        torch.set_num_threads(8)  # fewer slices than threads: none is left idle
        assert threads_of(weights, stack[:2]) == [4] * 2
        torch.set_num_threads(3)
        assert threads_of(weights, stack[:1]) == [3]
        assert threads_of(replace(weights, own_threads=True), stack) == [3] * 5

        def broken(*_):
            raise RuntimeError("no memory")

        monkeypatch.setattr(Threads, "forward", broken)
        with pytest.raises(RuntimeError, match="no memory"):
            threads_of(weights, stack)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
