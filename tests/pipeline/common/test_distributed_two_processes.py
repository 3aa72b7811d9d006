"""Two gloo processes: this one is rank 0, another that runs this file is rank 1. Both do ``work`` and bring its results."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ct_cncl.pipeline.common import distributed
from ct_cncl.pipeline.engines.epoch_losses import EpochLosses


def work():
    """What each rank finds; its data are 1, 3 on rank 0 and 11, 13 on rank 1."""
    torch.manual_seed(distributed.rank())  # DistributedDataParallel hands out rank 0's weights
    network = nn.Linear(1, 1, bias=False)
    first_weight = network.weight.item()
    wrapped = distributed.data_parallel(network, torch.device("cpu"))
    again = distributed.data_parallel(nn.Linear(1, 1), torch.device("cpu"))  # the group is there already
    given_weight = network.weight.item()
    data = torch.tensor([[1.0], [3.0]]) + 10 * distributed.rank()
    wrapped(data).mean().backward()

    engine = Engine(lambda _engine, batch: {"loss": batch.sum(), **({"d": -batch.sum()} if batch > 2 else {})})
    EpochLosses().attach(engine)
    engine.run(list(data))
    if distributed.rank() == 0:
        uneven = distributed.mean_over_processes({"a": torch.tensor(6.0), "b": torch.tensor(1.0)}, {"a": 3, "b": 1})
    else:
        uneven = distributed.mean_over_processes({"a": torch.tensor(4.0), "b": torch.tensor(2.0)}, {"a": 1, "b": 1})
    results = {
        "backend": torch.distributed.get_backend(),
        "wrapped": [isinstance(wrapped, DistributedDataParallel), isinstance(again, DistributedDataParallel)],
        "unwrapped": distributed.unwrapped(wrapped) is network,
        "first_weight": first_weight,
        "given_weight": given_weight,
        "gradient": network.weight.grad.item(),
        "loss": engine.state.epoch_losses["loss"],
        "uneven": uneven,
    }
    time.sleep(0.5 * distributed.rank())  # rank 1 is still at work when rank 0 would leave
    entered = time.time()
    distributed.stop_processes()
    return results | {"left": not torch.distributed.is_initialized(), "entered": entered, "gone": time.time()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    path = tmp_path_factory.mktemp("rank1") / "results.json"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    other = subprocess.Popen([sys.executable, __file__, str(path)], env=os.environ | shared | {"RANK": "1"})
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (shared | {"RANK": "0"}).items():
                patch.setenv(name, value)
            own = work()
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
        other.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return own, json.loads(path.read_text())


def test_group_is_joined_once_and_left_together(ranks):
    for results in ranks:
        assert results["backend"] == "gloo"
        assert results["wrapped"] == [True, True]
        assert results["unwrapped"]
        assert results["left"]


def test_processes_wait_for_each_other_before_they_leave(ranks):
    """Regression: a process that left alone could take down one that was still writing."""
    own, other = ranks
    assert own["entered"] < other["entered"] <= own["gone"]


def test_all_ranks_start_from_rank_0s_weights_and_average_their_gradients(ranks):
    own, other = ranks
    assert own["first_weight"] != other["first_weight"]
    assert own["given_weight"] == other["given_weight"] == own["first_weight"]
    assert own["gradient"] == other["gradient"] == (1 + 3 + 11 + 13) / 4


def test_epoch_losses_are_means_over_both(ranks):
    assert [results["loss"] for results in ranks] == [(1 + 3 + 11 + 13) / 4] * 2


def test_uneven_counts_are_weighted(ranks):
    """3 values with the sum 6 and one of 4: the mean of all four, not of the two means."""
    assert [results["uneven"] for results in ranks] == [{"a": 10 / 4, "b": 3 / 2}] * 2


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(work()))
