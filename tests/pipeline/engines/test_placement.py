import copy

import pytest
import torch
from torch import nn

from ct_cncl.pipeline.engines.memory import MemoryShortageError, naming_settings
from ct_cncl.pipeline.engines.placement import frozen_statistics, prepared_network, recompute_blocks
from ct_cncl.pipeline.networks import CNCL, BlockUNet, ConvFusion, DnCNN, Restormer, SRDenseNet, UNet

CPU = torch.device("cpu")
PREDICTORS = {
    "unet": lambda: UNet(width=4, depth=2),
    "naf": lambda: BlockUNet(width=4, encoder_blocks=[1, 2], decoder_blocks=[1, 1]),
    "residual": lambda: BlockUNet(width=4, encoder_blocks=[1], decoder_blocks=[1], block="residual", unshuffle=2),
    "restormer": lambda: Restormer(width=4, blocks=[1, 1], heads=[1, 2], refinement_blocks=1),
    "srdensenet": lambda: SRDenseNet(width=8, blocks=2, layers=2),
}


def cncl(name):
    torch.manual_seed(0)
    return CNCL(content=PREDICTORS[name](), noise=PREDICTORS[name](), fusion=ConvFusion(kernel_size=3))


def images(count=2):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def gradients(module):
    loss = sum(branch.square().mean() for branch in module.train()(images()))
    loss.backward()
    return loss.item(), [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("name", PREDICTORS)
def test_recomputed_activations_give_the_same_gradients_and_statistics(name):
    network = cncl(name)
    again = copy.deepcopy(network)
    loss, expected = gradients(prepared_network(network, CPU))
    same, found = gradients(prepared_network(again, CPU, recompute_activations=True))
    assert same == loss
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    for one, other in zip(again.buffers(), network.buffers(), strict=True):
        assert torch.equal(one, other)
    assert again.state_dict().keys() == network.state_dict().keys()


def kept_bytes(module):
    """What autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sum(branch.mean() for branch in module.train()(images(8)))
    return sum(kept.values())


def test_less_is_kept_for_the_backward_pass():
    network = cncl("unet")
    before = kept_bytes(prepared_network(copy.deepcopy(network), CPU))
    assert kept_bytes(prepared_network(network, CPU, recompute_activations=True)) < 0.5 * before


def test_a_copy_of_a_recomputing_network_has_its_own_weights():
    """The average of the weights is a deep copy."""
    network = prepared_network(cncl("unet"), CPU, recompute_activations=True).network
    twin = copy.deepcopy(network).eval()
    with torch.no_grad():
        before = twin(images())
        for parameter in network.parameters():
            parameter.add_(1.0)
        assert torch.equal(twin(images()), before)


def test_networks_without_blocks_are_refused():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="DnCNN has none of ConvPair.*raise accumulate"):
        recompute_blocks(DnCNN())


def test_statistics_are_frozen_and_thawed():
    norm = nn.BatchNorm2d(1)
    sequence = nn.Sequential(norm).train()
    with frozen_statistics(sequence):
        frozen = sequence(images())
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(1))
    assert torch.equal(sequence(images()), frozen)
    assert norm.num_batches_tracked == 1


def test_channels_last_changes_the_format_and_not_the_result():
    network = cncl("unet")
    plain = copy.deepcopy(network)
    module = prepared_network(network, CPU, channels_last=True)
    weight = network.content.down[1][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    loss, expected = gradients(prepared_network(plain, CPU))
    same, found = gradients(module)
    assert same == pytest.approx(loss, rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_compiling_keeps_the_names_of_the_weights(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    network = cncl("unet")
    names = list(network.state_dict())
    assert list(prepared_network(network, CPU, compiled=True).network.state_dict()) == names
    assert compiled == ["BranchOutputs"]
    prepared_network(network, CPU)
    assert len(compiled) == 1


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes."),
    ],
)
def test_a_shortage_of_memory_is_one_sentence_with_advice(error):
    sentence = r"^Expected a step to fit into memory, but got: .*memory.*\. Lower it\.$"
    with pytest.raises(MemoryShortageError, match=sentence), naming_settings("a step", "Lower it."):
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="^shapes differ$"), naming_settings("a step", "Lower it."):
        raise RuntimeError("shapes differ")
