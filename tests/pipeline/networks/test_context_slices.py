"""Three neighbouring slices in, the centre slice out: networks, training step and validation."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLEvaluator, CNCLTrainer
from ct_cncl.pipeline.losses import BranchLoss, LeastSquaresLoss
from ct_cncl.pipeline.metrics import quality_metrics
from ct_cncl.pipeline.networks import CNCL, BranchOutputs, ConvFusion, UNet, centre_slice


def three_slices(count=2, size=(8, 8)):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, *size, generator=generator)
    return [{"image": image, "label": image[1:2] + 0.01} for image in images]


def start_at_input():
    options = {"width": 4, "depth": 2, "in_channels": 3, "norm": "none", "zero_start": True}
    return CNCL(content=UNet(residual=True, **options), noise=UNet(**options), fusion=ConvFusion())


@pytest.mark.parametrize(("channels", "centre"), [(1, 0), (3, 1), (5, 2)])
def test_centre(channels, centre):
    image = torch.rand(2, channels, 4, 5)
    assert torch.equal(centre_slice(image), image[:, centre : centre + 1])


def test_outputs_are_about_the_centre():
    image = three_slices(size=(13, 9))[0]["image"][None]
    network = start_at_input()
    with torch.no_grad():
        content, noise, fused = network.branches(image)
    assert torch.equal(content, image[:, 1:2])
    assert torch.equal(noise, torch.zeros_like(content))
    assert torch.equal(fused, image[:, 1:2])


def test_single_output_counts_its_noise_from_the_centre():
    class Darker(nn.Module):
        def forward(self, image):
            return image[:, 1:2] - 0.125

    image = three_slices()[0]["image"][None]
    content, noise, fused = BranchOutputs(Darker())(image)
    assert torch.equal(content, fused)
    torch.testing.assert_close(noise, torch.full_like(noise, 0.125))


def test_training_step_judges_the_centre():
    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 1, 1)
            self.seen = []

        def forward(self, x):
            self.seen.append(x.detach().clone())
            return [x, self.convolution(x)]

    judge, network = Judge(), start_at_input()
    engine = CNCLTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(three_slices(), batch_size=2),
        generator=BranchOutputs(network),
        g_optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        pixel_loss=BranchLoss(content=1, noise=1, fused=1),
        discriminator=judge,
        d_optimizer=torch.optim.SGD(judge.parameters(), lr=0.0),
        adversarial_loss=LeastSquaresLoss(),
    )
    engine.run()
    batch = torch.stack([item["image"] for item in three_slices()])
    centre = batch[:, 1:2]
    real = torch.cat([centre + 0.01, centre - (centre + 0.01), centre], dim=1)
    fake = torch.cat([centre, torch.zeros_like(centre), centre], dim=1)
    torch.testing.assert_close(judge.seen[0], torch.cat([real, fake]))
    for name in ("loss_content", "loss_noise", "loss_fused"):
        assert engine.state.output[name].item() == pytest.approx(0.01, rel=1e-4)


def test_validation_reports_the_centre():
    engine = CNCLEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(three_slices(1, (16, 16))),
        generator=BranchOutputs(start_at_input()),
        metrics=quality_metrics(4096),
    )
    engine.run()
    centre = three_slices(1, (16, 16))[0]["image"][None, 1:2] * 4096 - 1024
    for name in ("image", "content", "denoised", "pred"):
        torch.testing.assert_close(engine.state.output[name], centre, rtol=0, atol=1e-3)
    assert engine.state.metrics["rmse"] == pytest.approx(0.01 * 4096, rel=1e-4)
