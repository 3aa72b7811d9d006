"""The benchmarks run, say ratios, and their page holds what they wrote."""

import importlib
import json
import logging
import re
import sys

import pytest
import torch
from tiny_runs import ROOT


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training_input", "training", "inference"])
def test_quick_run(benchmarks, name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results" / f"{name}.json"
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json", str(out), "--threads", str(torch.get_num_threads())])
    benchmarks(name).main()
    results = json.loads(out.read_text())
    ratios = [result for result in results if "ratio" in result]
    said = capsys.readouterr().out
    assert ratios
    for result in ratios:
        assert result["ratio"] > 0
        assert f"{result['ratio']:7.1f}x  {result['what']}" in said
    benchmarks("page").page(out.parent, tmp_path / "docs" / "performance.md")
    text = (tmp_path / "docs" / "performance.md").read_text()
    assert f"| {ratios[0]['ratio']:.1f} | {ratios[0]['what']} |" in text
    assert (tmp_path / "docs" / "images" / f"performance_{name}.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_share_outside_of_the_networks_is_measured_alone(benchmarks, monkeypatch, capsys):
    """In processor time: something, and never all."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["training", "--quick", "--share"])
    try:
        benchmarks("training").main()
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    shares = [float(text) for text in re.findall(r"fp32: ([\d.]+) % of \d+ ms of processor time", said)]
    assert len(shares) == 2
    assert all(0 < share < 100 for share in shares)
    assert "patches/s" not in said


@pytest.mark.slow
def test_a_cards_benchmark_runs_without_one_and_names_what_it_leaves_out(benchmarks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick", "--json", str(tmp_path / "gpu.json")])
    benchmarks("gpu").main()
    results = json.loads((tmp_path / "gpu.json").read_text())
    slices = [result["slices_per_second"] for result in results if "slices_per_second" in result]
    patches = [result["patches_per_second"] for result in results if "patches_per_second" in result]
    assert len(slices) == len(patches) == 1
    assert f"{slices[0]:.1f} slices/s" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick", "--minutes", "0"])
    benchmarks("gpu").main()
    said = capsys.readouterr().out
    assert "inference of cncl_fast in fp32: left out, 0 minutes are over" in said
    assert "slices/s" not in said


def test_bytes_of_a_known_layer(benchmarks):
    """Four output channels of one input channel, 8 x 8: input, output, weights and bias, four bytes each."""
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1))
    assert benchmarks("gpu").bytes_moved(layer, torch.rand(2, 1, 8, 8)) == 4 * (2 * 64 + 2 * 4 * 64 + 4 * 9 + 4)


@pytest.mark.slow
def test_beside_measures_in_processes_of_their_own_and_ends_what_spins(benchmarks, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["beside", "--quick", "--cases", "1", "--json", str(tmp_path / "beside.json")])
    spinning = []
    beside, begun = benchmarks("beside"), benchmarks("subprocess").Popen

    def popen(command, **options):
        spinning.append(begun(command, **options))
        return spinning[-1]

    monkeypatch.setattr(beside.subprocess, "Popen", popen)
    beside.main()
    results = [result for result in json.loads((tmp_path / "beside.json").read_text()) if "ratio" in result]
    assert [result["what"].split(",")[0] for result in results] == ["training step", "slice"]
    for result in results:
        assert result["ratio"] == pytest.approx(result["beside"] / result["alone"])
    assert all(process.poll() is not None for process in spinning)
    assert sum("while True: pass" in process.args for process in spinning) == 1


@pytest.mark.slow
def test_an_archive_is_shared_by_processes_and_denoised_whole(benchmarks, tmp_path, monkeypatch):
    out = tmp_path / "archive.json"
    monkeypatch.setattr(sys, "argv", ["archive", "--quick", "--ways", "1x1", "2x1", "--json", str(out)])
    benchmarks("archive").main()  # stops where a slice is missing
    one, two = (result for result in json.loads(out.read_text()) if "ratio" in result)
    assert one["ratio"] == 1
    assert two["ratio"] == pytest.approx(two["slices_per_second"] / one["slices_per_second"])
    assert two["what"].startswith("2 processes of 1 threads: ")


def test_startup_measures_fresh_processes(benchmarks):
    wall, used = benchmarks("startup").run([sys.executable, "-c", "sum(range(10**6))"])
    assert 0.01 < used <= wall * 2


def test_the_page_takes_tables_as_they_are(benchmarks, tmp_path):
    (tmp_path / "denoise_series.md").write_text("| a |\n|---|\n| 7 |\n")
    benchmarks("page").page(tmp_path, tmp_path / "performance.md")
    assert "## Inference, from DICOM to DICOM" in (tmp_path / "performance.md").read_text()
    assert "\n| a |\n|---|\n| 7 |\n" in (tmp_path / "performance.md").read_text()


def test_operations_are_those_of_a_known_network(benchmarks, monkeypatch):
    """A 3x3 convolution, forward and twice as much backward: less the first one's, whose input has no gradient."""
    training = benchmarks("training")
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 3, padding=1))
    monkeypatch.setattr(training, "network", lambda _: layers)
    flops, _ = training.step_cost("any", batch=2, side=8)
    assert flops == 2 * (2 * 8 * 8) * 9 * 4 * (2 + 3)
