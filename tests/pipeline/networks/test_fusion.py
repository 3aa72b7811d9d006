import pytest
import torch

from ct_cncl.pipeline.networks import ConvFusion


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_starts_as_average_up_to_the_border(kernel_size):
    content, denoised = torch.randn(2, 1, 7, 9), torch.randn(2, 1, 7, 9)
    torch.testing.assert_close(ConvFusion(kernel_size=kernel_size)(content, denoised), (content + denoised) / 2)


def test_weights_are_those_of_content_and_denoised_in_this_order():
    fusion = ConvFusion()
    with torch.no_grad():
        fusion.convolution.weight.copy_(torch.tensor([0.25, 3.0]).view(1, 2, 1, 1))
        fusion.convolution.bias.fill_(-1)
    assert fusion(torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), 5.0)).item() == 0.25 * 4 + 3 * 5 - 1


@pytest.mark.parametrize("kernel_size", [0, 2, -1])
def test_even_kernel_is_refused(kernel_size):
    with pytest.raises(ValueError, match="odd kernel_size"):
        ConvFusion(kernel_size=kernel_size)
