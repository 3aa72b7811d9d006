"""The CT encoder that comes with the bundle."""

import pytest
import torch

from ct_cncl.pipeline.losses import FeatureLoss
from ct_cncl.pipeline.losses.encoders import CTEncoder
from ct_cncl.pipeline.networks import Branches
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.hu import to_network

WEIGHTS = installed_bundle() / "models" / "ct_encoder.pt"
LAYERS = ["conv1_2", "conv2_2"]


def textured(seed, *, smooth=0, sigma=25.0):
    """Soft tissue with noise of one level: white, or of a softer kernel."""
    noise = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(seed))
    for _ in range(smooth):
        noise = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    noise = noise[..., 16:80, 16:80]
    return to_network(50 + sigma * noise / noise.std())


@pytest.fixture(scope="module")
def loss():
    return FeatureLoss(lambda: CTEncoder(weights=WEIGHTS), layers=LAYERS, device=torch.device("cpu"), texture=1.0)


def distance(loss, image, reference):
    return sum(loss(Branches(image, image, image), image, reference).values()).item()


def test_it_is_small():
    assert WEIGHTS.stat().st_size < 25e6


def test_it_knows_a_texture_by_its_kernel_and_level_and_not_by_its_pixels(loss):
    """Other noise of the same kind is nearer than the same noise smoothed, weakened, or taken away."""
    reference = textured(0)
    alike = distance(loss, textured(1), reference)
    assert alike < 0.25 * distance(loss, textured(0, smooth=1), reference)
    assert alike < 0.25 * distance(loss, textured(0, sigma=12.0), reference)
    assert alike < 0.25 * distance(loss, textured(0, sigma=0.0).nan_to_num(nan=(50 + 1024) / 4096), reference)
