"""What CNCL hands to its parts; its own outputs alone do not tell, since the fusion starts as an average."""

import torch
from torch import nn

from ct_cncl.pipeline.networks import CNCL, UNet


class Offset(nn.Module):
    def __init__(self, offset, multiple=1):
        super().__init__()
        self.offset, self.multiple = offset, multiple

    def forward(self, image):
        self.seen = image
        return image + self.offset


class NoMixing(nn.Module):
    """A fusion that keeps its two inputs apart."""

    def forward(self, content, denoised):
        return content + 1000 * denoised


def test_fusion_gets_the_content_first_and_the_denoised_image_second():
    image = torch.randn(2, 1, 6, 7)
    fused = CNCL(content=Offset(3.0), noise=Offset(-5.0), fusion=NoMixing())(image)
    torch.testing.assert_close(fused, image + 3 + 1000 * torch.full_like(image, 5.0), rtol=1e-5, atol=1e-3)


def test_both_predictors_start_from_the_given_width():
    torch.manual_seed(0)
    predictors = {name: UNet(width=16, depth=2) for name in ("content", "noise")}
    CNCL(**predictors, fusion=NoMixing(), init_std=0.3)
    for predictor in predictors.values():
        assert abs(predictor.bottom[0].weight.std().item() - 0.3) < 0.02


def test_sides_fit_the_predictor_that_asks_for_more():
    for multiples in ((4, 8), (8, 4)):
        content, noise = (Offset(0.0, multiple) for multiple in multiples)
        image = torch.randn(1, 1, 9, 17)
        fused = CNCL(content=content, noise=noise, fusion=NoMixing())(image)
        for predictor in (content, noise):  # mirrored at the far ends up to multiples of 8
            torch.testing.assert_close(predictor.seen, nn.functional.pad(image, (0, 7, 0, 7), mode="reflect"))
        torch.testing.assert_close(fused, image)
