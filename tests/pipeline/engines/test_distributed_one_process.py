import pytest
import torch
from torch import nn

from ct_cncl.pipeline.engines import distributed
from ct_cncl.pipeline.engines.precision import autocast, gradient_scaler


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


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_on_the_cpu_is_float32(precision):
    cpu = torch.device("cpu")
    with autocast(cpu, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not gradient_scaler(cpu, precision).is_enabled()


def test_unknown_precision():
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        autocast(torch.device("cpu"), "half")
