"""A trainer of a tiny network on a few items, and a discriminator that records what it sees."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLTrainer
from ct_cncl.pipeline.losses import BranchLoss, LeastSquaresLoss
from ct_cncl.pipeline.networks import CNCL, BranchOutputs, ConvFusion, UNet

CPU = torch.device("cpu")


def items(count=2):
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(count, 1, 8, 8, generator=generator)
    image = label + 0.1 * torch.randn(label.shape, generator=generator)
    return [{"image": i, "label": x} for i, x in zip(image, label)]


def tiny_network():
    torch.manual_seed(1)
    return CNCL(content=UNet(width=4, depth=1), noise=UNet(width=4, depth=1), fusion=ConvFusion())


class Judge(nn.Module):
    """A discriminator that records what it sees and returns a list that ends with the logits."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1)
        self.seen, self.frozen = [], []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        self.frozen.append(not self.convolution.weight.requires_grad)
        return [x, self.convolution(x)]


def trainer(network, *, judge=None, count=2, device=CPU, max_epochs=1, g_lr=0.1, **options):
    if judge is not None:
        options = {
            "discriminator": judge,
            "d_optimizer": torch.optim.SGD(judge.parameters(), lr=0.01),
            "adversarial_loss": LeastSquaresLoss(),
        } | options
    return CNCLTrainer(
        device=device,
        max_epochs=max_epochs,
        train_data_loader=DataLoader(items(count), batch_size=2),
        generator=BranchOutputs(network),
        g_optimizer=torch.optim.SGD(network.parameters(), lr=g_lr),
        **{"pixel_loss": BranchLoss(content=1, noise=2, fused=3)} | options,
    )
