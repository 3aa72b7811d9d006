"""Training in one process or several, as configs and engines need it, based on the environment that torchrun sets."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """Rank of this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes files and logs."""
    return rank() == 0


def is_other_process() -> bool:
    """Whether another process writes files and logs; used for MONAI's ``_disabled_`` in configs."""
    return not is_main_process()


def default_device() -> torch.device:
    """The CUDA device of this process (by LOCAL_RANK), or the CPU without CUDA."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def input_device(device: torch.device, num_workers: int) -> torch.device:
    """The device on which batches are made: that of the training, or the CPU with loader workers, which cannot share a GPU.

    >>> input_device(torch.device("cuda", 1), 2), input_device(torch.device("cuda", 1), 0)
    (device(type='cpu'), device(type='cuda', index=1))
    """
    return torch.device("cpu") if num_workers else device


def start_processes() -> None:
    """Join the process group that torchrun announced: nccl on CUDA, gloo on the CPU. Does nothing in a single process."""
    if world_size() > 1 and not distributed.is_initialized():
        device = default_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        store, own_rank, size = next(distributed.rendezvous("env://"))
        # torchrun keeps its store when it restarts processes: without a prefix, they would read the addresses of dead ones.
        store = distributed.PrefixStore(f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=own_rank, world_size=size)


def stop_processes() -> None:
    """Leave the process group, if there is one, together with the other processes: leaving alone could crash them."""
    if distributed.is_initialized():
        distributed.barrier()
        # Gloo's threads may still be finishing the last exchange, for which they need the interpreter lock. Dropping the last
        # reference to the group waits for these threads while holding that lock, so that occasionally a process never ended.
        time.sleep(0.2)
        distributed.destroy_process_group()


def wait_for_others() -> None:
    """Wait until all processes have called this: under torchrun, a process that ends with an error ends those still running.

    Does nothing in a single process or without torchrun, whose agent keeps the store and ends all processes if one dies.
    """
    if world_size() == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    store, _, _ = next(distributed.rendezvous("env://"))
    key = f"ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store.add(key, 1)
    while store.add(key, 0) < world_size():
        time.sleep(0.2)


def mean_over_processes(sums: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> dict[str, float]:
    """Means over the values of all processes, with a single exchange between them, or none in a single process.

    Args:
        sums: scalar sums by name, on the device of this process; every process has the same names in the same order.
        counts: number of values in each sum of this process.

    Returns:
        The sum over all processes divided by the count over all processes, by name.

    >>> mean_over_processes({"loss": torch.tensor(6.0)}, {"loss": 4})
    {'loss': 1.5}
    """
    if not sums:
        return {}
    own = torch.stack(list(sums.values())).double()
    totals = torch.stack([own, own.new_tensor([counts[name] for name in sums])])
    if distributed.is_initialized():
        distributed.all_reduce(totals)
    return dict(zip(sums, (totals[0] / totals[1]).tolist()))


def data_parallel(network: nn.Module | None, device: torch.device) -> nn.Module | None:
    """Move a network to its device and, with several processes, wrap it so that they average gradients.

    Args:
        network: a network that uses every parameter in ``forward``; None stays None.
        device: the device of this process.
    """
    if network is None:
        return None
    network.to(device)
    if world_size() == 1:
        return network
    start_processes()
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def unwrapped(network: nn.Module) -> nn.Module:
    """The module inside a DistributedDataParallel, or ``network`` itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network
