import copy

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ct_cncl.pipeline.losses import SpectralPatchDiscriminator

OPTIONS = {"spatial_dims": 2, "in_channels": 3, "channels": 4, "num_layers_d": 2, "norm": "INSTANCE"}


def discriminator():
    torch.manual_seed(0)
    return SpectralPatchDiscriminator(**OPTIONS)


def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_largest_singular_value_of_every_convolution_is_one():
    judge = discriminator().train()
    for _ in range(100):
        judge(image())
    weights = [module.weight for module in judge.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(weights) == 4
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2)
        torch.testing.assert_close(largest, torch.tensor(1.0), rtol=0, atol=1e-3)


def test_weights_scaled_up_change_nothing():
    judge = discriminator().eval()
    expected = judge(image())[-1]
    larger = copy.deepcopy(judge)
    with torch.no_grad():
        for name, parameter in larger.named_parameters():
            if name.endswith("weight.original"):
                parameter.mul_(7)
    torch.testing.assert_close(larger(image())[-1], expected)


def test_a_checkpoint_holds_the_singular_vectors():
    """Plain tensors, and after loading the next steps are the same to the bit."""
    first = discriminator().train()
    first(image())
    second = SpectralPatchDiscriminator(**OPTIONS).train()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert torch.equal(first(image())[-1], second(image())[-1])


def test_trains_under_distributed_data_parallel(tmp_path):
    """The generator's step runs the bare module, whose singular vectors move on, between two of the discriminator's."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        judge = discriminator().train()
        parallel = DistributedDataParallel(judge)
        for _ in range(3):
            parallel(image())[-1].square().mean().backward()
            judge(image())
    finally:
        distributed.destroy_process_group()
    assert all(parameter.grad.isfinite().all() for parameter in judge.parameters())
