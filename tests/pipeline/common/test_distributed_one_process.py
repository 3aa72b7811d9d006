import pytest
import torch
from torch import nn

from ct_cncl.pipeline.common import distributed
from ct_cncl.pipeline.networks.precision import autocast, gradient_scaler


def test_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    network = nn.Conv2d(1, 1, 1)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (0, 1, True)
    assert distributed.data_parallel(network, torch.device("cpu")) is network
    assert distributed.unwrapped(network) is network


def test_ranks_come_from_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (distributed.rank(), distributed.world_size(), distributed.is_main_process()) == (3, 4, False)


def test_one_process_has_no_group_to_join_or_leave(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.start_processes()
    assert not torch.distributed.is_initialized()
    distributed.stop_processes()


def test_means_of_one_process_need_no_exchange():
    sums = {"a": torch.tensor(6.0), "b": torch.tensor(-1.0, dtype=torch.float64)}
    assert distributed.mean_over_processes(sums, {"a": 4, "b": 2}) == {"a": 1.5, "b": -0.5}
    assert distributed.mean_over_processes({}, {}) == {}


@pytest.fixture
def four_gpus(monkeypatch):
    """A machine with four CUDA devices, and the calls that would set them up."""
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(torch.distributed.HashStore(), 2, 8)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **_: calls.append(backend))
    return calls


@pytest.mark.parametrize(("local_rank", "index"), [(None, 0), ("1", 1), ("3", 3), ("5", 1)])
def test_device_is_that_of_the_local_rank(monkeypatch, four_gpus, local_rank, index):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert distributed.default_device() == torch.device("cuda", index)


def test_device_without_cuda_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.default_device() == torch.device("cpu")


def test_cuda_processes_take_their_device_before_they_join_nccl(monkeypatch, four_gpus):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "2")
    distributed.start_processes()
    assert four_gpus == [torch.device("cuda", 2), "nccl"]


def test_a_restarted_group_does_not_read_what_the_first_one_wrote(monkeypatch):
    """Regression: torchrun keeps its store, and processes that it started anew called dead ones."""
    kept, stores = torch.distributed.HashStore(), []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(kept, 1, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **own: stores.append(own))
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        distributed.start_processes()
    first, second = (own["store"] for own in stores)
    first.set("address", "dead")
    assert not second.check(["address"])
    assert [(own["rank"], own["world_size"]) for own in stores] == [(1, 2), (1, 2)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_on_the_cpu_is_float32(precision):
    cpu = torch.device("cpu")
    with autocast(cpu, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not gradient_scaler(cpu, precision).is_enabled()


def test_unknown_precision():
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        autocast(torch.device("cpu"), "half")
