import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ct_cncl.pipeline.networks import CNCL, BranchOutputs, ConvFusion, UNet
from ct_cncl.pipeline.networks.branches import pad_to_multiple


class Scale(nn.Module):
    """Predicts ``factor * image``, and asks for sides that are multiples of 16."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.multiple = 16

    def forward(self, image):
        assert image.shape[-2] % 16 == image.shape[-1] % 16 == 0
        return self.factor * image


def tiny(**options):
    torch.manual_seed(3)
    return CNCL(content=UNet(width=4, depth=2), noise=UNet(width=4, depth=2), fusion=ConvFusion(), **options)


def test_paper_size_and_cost():
    with torch.device("meta"):
        network = CNCL(content=UNet(), noise=UNet(), fusion=ConvFusion()).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, 1, 512, 512))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(43.8, abs=0.05)
    assert counter.get_total_flops() / 2e9 == pytest.approx(290, abs=1)


@pytest.mark.parametrize("size", [(200, 331), (1, 1), (5, 7), (16, 17), (1, 40)])
def test_any_size_keeps_its_values(size):
    image = torch.randn(2, 1, *size)
    branches = CNCL(content=Scale(1.0), noise=Scale(0.25), fusion=ConvFusion()).branches(image)
    torch.testing.assert_close(branches.content, image, rtol=0, atol=0)
    torch.testing.assert_close(branches.noise, 0.25 * image, rtol=0, atol=0)
    torch.testing.assert_close(branches.fused, 0.5 * image + 0.5 * 0.75 * image)


@pytest.mark.parametrize("size", [(200, 331), (1, 1), (5, 7)])
def test_unet_any_size_is_finite_and_of_the_same_size(size):
    with torch.no_grad():
        output = tiny().eval()(torch.randn(1, 1, *size))
    assert output.shape == (1, 1, *size)
    assert output.isfinite().all()


def test_padding_reflects_or_repeats_and_only_at_the_end():
    image = torch.arange(15.0).view(1, 1, 3, 5)
    reflected = pad_to_multiple(image, 4)
    assert reflected.shape == (1, 1, 4, 8)
    torch.testing.assert_close(reflected[..., :3, :5], image)
    assert reflected[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert reflected[0, 0, :, 0].tolist() == [0, 5, 10, 5]
    repeated = pad_to_multiple(image, 16)
    assert repeated[0, 0, 0].tolist() == [0, 1, 2, 3, 4, *[4] * 11]
    assert pad_to_multiple(image[..., :2, :4], 2) is not None
    even = torch.zeros(1, 1, 4, 8)
    assert pad_to_multiple(even, 4) is even


def test_forward_is_the_fused_branch():
    network, image = tiny().eval(), torch.randn(1, 1, 13, 9)
    with torch.no_grad():
        branches = network.branches(image)
        torch.testing.assert_close(network(image), branches.fused, rtol=0, atol=0)
        expected = (branches.content + image - branches.noise) / 2  # the fusion starts as the average
        torch.testing.assert_close(branches.fused, expected)


def test_scripted_equals_eager():
    network = tiny().eval()
    scripted = torch.jit.script(network)
    for size in ((16, 16), (21, 30), (1, 1)):
        image = torch.randn(1, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), network(image), rtol=0, atol=1e-6)
            for got, expected in zip(scripted.branches(image), network.branches(image)):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_every_parameter_gets_a_gradient():
    """DistributedDataParallel waits for ever for a parameter that is not used."""
    network = tiny()
    network(torch.randn(2, 1, 16, 16)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_eval_uses_running_statistics():
    """Regression: another implementation tested in training mode, so that a slice's result hung on its batch."""
    network, first = tiny(), torch.randn(1, 1, 16, 16)
    batch = torch.cat([first, 5 * torch.randn(1, 1, 16, 16) + 3])
    with torch.no_grad():
        network.train()(batch)
        network.eval()
        state = {name: value.clone() for name, value in network.state_dict().items()}
        torch.testing.assert_close(network(batch)[:1], network(first), rtol=0, atol=1e-6)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
        assert (network.train()(batch)[:1] - network.eval()(first)).abs().max() > 1e-3


def test_init_std_is_for_the_predictors_only():
    network = tiny(init_std=0.02)
    weights = network.content.bottom[0].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.fusion.convolution.weight.flatten().tolist() == [0.5, 0.5]


def test_branch_outputs_of_cncl_and_of_a_plain_network():
    image = torch.randn(1, 1, 8, 8)
    network = CNCL(content=Scale(1.0), noise=Scale(0.5), fusion=ConvFusion())
    for got, expected in zip(BranchOutputs(network)(image), network.branches(image)):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)

    class Double(nn.Module):
        def forward(self, image):
            return 2 * image

    content, noise, fused = BranchOutputs(Double())(image)
    torch.testing.assert_close(content, 2 * image)
    torch.testing.assert_close(noise, -image)
    torch.testing.assert_close(fused, 2 * image)


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (nn.Conv2d(1, 2, 3, padding=1), r"\(2, 2, 8, 6\)"),
        (nn.Conv2d(1, 1, 3), r"\(2, 1, 6, 4\)"),
        (nn.Flatten(), r"\(2, 48\)"),
        (nn.MaxPool2d(1, return_indices=True), "a tuple"),
    ],
)
def test_a_network_that_gives_no_slice_is_refused(network, got):
    """Two channels used to be compared with one, by broadcasting, with a warning that nobody sees in a training."""
    with pytest.raises(
        ValueError, match=rf"returns \(2, 1, 8, 6\), one denoised slice each, for images \(2, 1, 8, 6\).*but got {got}"
    ):
        BranchOutputs(network)(torch.rand(2, 1, 8, 6))
