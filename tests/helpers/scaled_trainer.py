"""A trainer of two convolutions whose losses are scaled as in fp16, on the CPU."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLTrainer
from ct_cncl.pipeline.losses import BranchLoss, LeastSquaresLoss
from ct_cncl.pipeline.networks import CNCL, BranchOutputs, ConvFusion

CPU = torch.device("cpu")
MAXIMUM = 2.0**127
"""A scale with which any loss above 2 becomes infinite in float32, as large losses do in fp16."""


def network():
    torch.manual_seed(0)
    return CNCL(content=nn.Conv2d(1, 1, 3, padding=1), noise=nn.Conv2d(1, 1, 3, padding=1), fusion=ConvFusion())


def trainer(generator, *, g_scale=None, d_scale=None, judge=None, iterations=1, **options):
    """Given a scale, replaces the scaler, which is off on the CPU, by an active one."""
    torch.manual_seed(1)
    label = torch.rand(iterations, 1, 8, 8)
    items = [{"image": y, "label": x} for y, x in zip(label + 0.1 * torch.randn_like(label), label)]
    if judge is not None:
        options |= {"discriminator": judge, "d_optimizer": torch.optim.SGD(judge.parameters(), lr=0.01)}
        options |= {"adversarial_loss": LeastSquaresLoss()}
    engine = CNCLTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=DataLoader(items, batch_size=1),
        generator=BranchOutputs(generator),
        g_optimizer=torch.optim.SGD(generator.parameters(), lr=1e-4),
        **{"pixel_loss": BranchLoss(content=100, noise=100, fused=100)} | options,
    )
    for name, scale in (("g_scaler", g_scale), ("d_scaler", d_scale)):
        if scale is not None:
            setattr(engine, name, torch.amp.GradScaler("cpu", init_scale=scale, enabled=True))
    return engine


def judging():
    torch.manual_seed(2)
    return LastLogits()


class LastLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return [x, self.convolution(x)]


def weights(module):
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])
