"""ct-cncl models: sizes against the paper and by hand, measurements in a process of their own."""

import csv

import pytest
import torch
from torch import nn

from ct_cncl.pipeline.ablation import model_table as module
from ct_cncl.pipeline.ablation.forward_cost import ForwardCost, gmac, measure_in_process
from ct_cncl.pipeline.ablation.model_table import format_models, model_table, write_models
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.overlays import variant, variants_with_network
from ct_cncl.pipeline.workflow.run import overlay_files


def unet_by_hand(width, size):
    """(parameters, multiplications) of one U-Net branch as method.md describes it, from its widths alone."""
    widths = [width * 2**level for level in range(5)]
    pairs = [(1, widths[0], widths[0], 0)]
    pairs += [(widths[n - 1], widths[n], widths[n], n) for n in (1, 2, 3)]
    pairs += [(widths[3], widths[4], widths[3], 4)]
    pairs += [(2 * widths[n], widths[n], widths[n - 1], n) for n in (3, 2, 1)]
    weights = multiplications = 0
    for before, middle, after, level in pairs:
        for inputs, outputs in ((before, middle), (middle, after)):
            weights += 9 * inputs * outputs + 2 * outputs  # batch norm has a bias, so the convolution has none
            multiplications += 9 * inputs * outputs * (size >> level) ** 2
    for inputs, outputs in ((2 * widths[0], widths[0] // 2), (widths[0] // 2, 1)):  # the last pair, without batch norm
        weights += 9 * inputs * outputs + outputs
        multiplications += 9 * inputs * outputs * size**2
    return weights, multiplications


@pytest.mark.parametrize(("names", "width"), [((), 64), (("width16",), 16)])
def test_sizes_are_those_of_the_paper_s_layers(names, width):
    row = model_table(names, size=256, timing=False)[-1] if names else one_row("paper", size=256)
    weights, multiplications = unet_by_hand(width, 256)
    assert row.parameters == 2 * weights + 3
    assert row.gmac == pytest.approx((2 * multiplications + 2 * 256**2) / 1e9, rel=1e-12)


def one_row(name, **options):
    return {row.variant: row for row in model_table([name], timing=False, **options)}[name]


def test_the_paper_s_network_has_43_8_million_parameters_and_290_gmac():
    row = one_row("paper")
    assert row.parameters / 1e6 == pytest.approx(43.8, abs=0.05)
    assert row.gmac == pytest.approx(290, abs=0.5)


def test_matrix_products_of_attention_are_counted():
    class Product(nn.Module):
        def forward(self, image):
            return image.flatten(2) @ image.flatten(2).transpose(1, 2)

    assert gmac(Product(), size=8, channels=4) == 4 * 64 * 4 / 1e9


def test_lists_the_paper_first_and_every_overlay_with_a_network():
    names = [one.name for one in variants_with_network()]
    assert names[0] == "paper"
    assert {"cncl_fast", "redcnn", "dual", "fusion_gate", "width16", "unet_ln_gelu"} <= set(names)
    assert set(names[1:]) <= set(overlay_files())


def test_equal_networks_are_measured_once(monkeypatch):
    measured = []

    def measure(definition, **_options):
        measured.append(definition)
        return ForwardCost(1.0, 2.0, 3)

    monkeypatch.setattr(module, "measure_in_process", measure)
    # fusion_conv1x1 says the paper's fusion once more
    monkeypatch.setattr(
        module, "variants_with_network", lambda: [variant("paper"), variant("fusion_conv1x1"), variant("dual")]
    )
    rows = model_table(size=64)
    assert [row.variant for row in rows] == ["paper", "fusion_conv1x1", "dual"]
    assert len(measured) == 2
    assert rows[1][1:] == rows[0][1:] != rows[2][1:]


def test_measured_in_a_fresh_process():
    ballast = torch.ones(64, 2**20)  # 256 MiB in this process are not that one's
    enlarging = {"network_def": {"_target_": "torch.nn.Upsample", "scale_factor": 64}}
    cost = measure_in_process(enlarging, size=64, repeats=2, threads=1)
    # 4096 x 4096 float32 are 64 MiB, held during a pass and free again after it.
    assert 64 <= cost.peak_mib < 64 + 60
    assert cost.threads == 1
    assert 0 < cost.seconds < 60
    assert ballast[0, 0] == 1


def test_a_measurement_that_fails_says_why():
    with pytest.raises(RuntimeError, match="process ended with 1: .*Try a smaller --size"):
        measure_in_process({"network_def": {"_target_": "ct_cncl.pipeline.networks.Nothing"}}, size=32)


def test_csv_holds_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measure_in_process", lambda *_a, **_o: ForwardCost(0.25, 123.4, 2))
    rows = model_table(["width16"], size=32)
    with write_models(tmp_path / "models.csv", rows, size=32).open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [line["variant"] for line in written] == ["paper", "width16"]
    assert written[1]["parameters"] == str(rows[1].parameters)
    assert float(written[1]["GMAC (32 x 32)"]) == rows[1].gmac
    assert float(written[1]["CPU seconds a slice (2 threads)"]) == 0.25
    assert float(written[1]["peak memory MiB"]) == 123.4
    shown = format_models(rows, size=32).splitlines()
    assert shown[3] == f"| width16 | {rows[1].parameters:,} | {rows[1].gmac:.2f} | 0.250 | 123 |"


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["nothing"], {}, "overlay, but got 'nothing'"),
        (["dual", "dual"], {}, "dual and dual are the same"),
        ([], {"size": 8}, "size of at least 16"),
        ([], {"repeats": 0}, "got 512, 0 and None"),
        ([], {"threads": 0}, "got 512, 3 and 0"),
    ],
)
def test_refuses(names, options, message):
    with pytest.raises(ConfigError, match=message):
        model_table(names, **options)
