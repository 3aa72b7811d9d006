import torch
from torch import nn
from torch.utils.data import DataLoader

from ct_cncl.pipeline.engines import CNCLEvaluator
from ct_cncl.pipeline.metrics import quality_metrics
from ct_cncl.pipeline.networks import Branches


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
