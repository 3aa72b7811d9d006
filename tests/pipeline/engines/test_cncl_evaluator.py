from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLEvaluator
from ct_cncl.pipeline.engines.memory import MemoryShortageError
from ct_cncl.pipeline.losses import BranchLoss
from ct_cncl.pipeline.metrics import quality_metrics
from ct_cncl.pipeline.networks import Branches, BranchOutputs


class Known(nn.Module):
    """Adds 10, 20 and 30 HU to what each branch should be for an empty noise."""

    def forward(self, image):
        assert not self.training
        return Branches(image + 10 / 4096, torch.full_like(image, -20 / 4096), image + 30 / 4096)


def test_output_is_in_hu_with_the_padding_restored():
    hu = torch.randint(-1000, 1000, (1, 12, 13)).float()
    padding = torch.zeros(1, 12, 13, dtype=torch.bool)
    padding[:, :3] = True
    item = {"image": (hu + 1024) / 4096, "label": (hu - 5 + 1024) / 4096, "padding": padding}
    network = Known().train()
    engine = CNCLEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([item]),
        generator=network,
        metrics=quality_metrics(4096),
    )
    engine.run()
    output = engine.state.output
    torch.testing.assert_close(output["image"][0], hu)
    torch.testing.assert_close(output["label"][0], hu - 5)
    for name, offset in (("content", 10), ("denoised", 20), ("pred", 30)):
        torch.testing.assert_close(output[name][0], torch.where(padding, hu, hu + offset), rtol=0, atol=1e-3)
    assert engine.state.key_metric_name == "psnr"
    assert abs(engine.state.metrics["rmse_input"] - 5) < 1e-3


@pytest.mark.parametrize("averaging", [1, 2])
def test_the_validation_loss_is_the_mean_of_the_weighted_pixel_losses_over_slices(averaging):
    """Known adds 10, -20 and 30 HU; the noise is 5 HU, or -5."""
    hu = torch.randint(-1000, 1000, (1, 12, 13)).float()
    items = [{"image": (hu + 1024) / 4096, "label": (hu - noise + 1024) / 4096} for noise in (5.0, -5.0)][:averaging]
    engine = CNCLEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items),
        generator=Known(),
        metrics=quality_metrics(4096),
        pixel_loss=BranchLoss(content=1, noise=2, fused=3),
    )
    engine.run()
    errors = [(15, 25, 35), (5, 15, 25)][:averaging]
    expected = sum(content + 2 * noise + 3 * fused for content, noise, fused in errors) / averaging / 4096
    assert engine.state.metrics["validation_loss"] == pytest.approx(expected, rel=1e-4)
    assert engine.state.key_metric_name == "psnr"


def evaluator(network, **options):
    items = [{"image": torch.rand(1, 12, 12), "label": torch.rand(1, 12, 12)}]
    return CNCLEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items),
        generator=BranchOutputs(network).train(network.training),
        metrics=quality_metrics(4096),
        **options,
    )


def test_a_validation_leaves_no_graph_and_the_network_in_its_mode():
    for training in (True, False):
        network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)).train(training)
        before = network[1].running_mean.clone()
        engine = evaluator(network)
        engine.run()
        assert not any(value.requires_grad for value in engine.state.output.values())
        assert torch.equal(network[1].running_mean, before)
        assert network[1].training == training


def test_the_network_runs_under_autocast(monkeypatch):
    active, seen = [], []

    @contextmanager
    def autocast(device, precision):
        active.append((device.type, precision))
        yield
        active.pop()

    monkeypatch.setattr("ct_cncl.pipeline.engines.evaluator.autocast", autocast)
    network = nn.Conv2d(1, 1, 1)
    network.register_forward_hook(lambda *_: seen.append(tuple(active)))
    evaluator(network, precision="fp16").run()
    assert seen == [(("cpu", "fp16"),)]


def test_slices_that_do_not_fit_name_the_settings():
    class Large(nn.Module):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(
        MemoryShortageError, match=r"1 slice of 12 x 12 in validation .*precision=bf16 or train.dataset.cache=none"
    ):
        evaluator(Large()).run()
