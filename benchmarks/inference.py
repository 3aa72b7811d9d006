"""Seconds per slice of the network alone: cncl_fast, the paper's CNCL and RED-CNN in one process, and how close they come to the ceiling.

    .venv/bin/python benchmarks/inference.py [--quick] [--json FILE] [--scan NIFTI]

The difference between bf16 and fp32 is measured with the shipped weights, on the middle slice of --scan or on noisy soft tissue.
For times from DICOM to DICOM see denoise_series.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from common import ceiling, curve, definition, network, options, report, seconds

from ct_cncl.pipeline.ablation.forward_cost import gmac, measure_in_process
from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.networks.precision import in_precision
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.workflow.overlays import network_without_weights
from ct_cncl.transforms.common.hu import HU_RANGE, to_network

RIVALS = {"paper": "the paper's CNCL", "redcnn": "RED-CNN"}


def per_slice(model: torch.nn.Module, *, side: int, batch: int = 1, repeats: int = 3) -> float:
    """Seconds per slice, on noise."""
    parameter = next(model.parameters())
    image = torch.rand(batch, 1, side, side, device=parameter.device, dtype=parameter.dtype)
    with torch.inference_mode():
        return seconds(lambda: model(image), repeats=repeats) / batch


def slice_of(scan: Path | None, side: int) -> torch.Tensor:
    """A slice (1, 1, columns, rows), HU: the middle one of a NIfTI file, or soft tissue with noise of 25 HU."""
    if scan is None:
        return 50 + 25 * torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    image = nib.load(scan)
    hu = image.dataobj[..., image.shape[2] // 2]  # type: ignore[attr-defined]
    return torch.from_numpy(np.asarray(hu, dtype=np.float32))[None, None]


def against_rivals(
    models: dict[str, torch.nn.Module], *, side: int, title: str
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds per slice of each network in float32 and, after "bf16 ", in bfloat16; and how many times faster cncl_fast is.

    Args:
        models: by name; all on one device.
        side: pixels a side.
        title: says what was measured.
    """
    took = {}
    for name, model in models.items():
        low = in_precision(model, device=next(model.parameters()).device, precision="bf16")
        for key, measured in ((name, model), (f"bf16 {name}", low)):
            took[key] = per_slice(measured, side=side, repeats=5 if name == "cncl_fast" else 2)
    compared = [("", ""), ("bf16 ", ""), ("bf16 ", "bf16 ")]
    return took, [
        {
            "what": f"{title}: {ours}cncl_fast {took[f'{ours}cncl_fast']:.3f} s, {theirs}{words} {took[f'{theirs}{name}']:.3f} s",
            "ratio": took[f"{theirs}{name}"] / took[f"{ours}cncl_fast"],
            "ours": took[f"{ours}cncl_fast"],
            "theirs": took[f"{theirs}{name}"],
        }
        for name, words in RIVALS.items()
        for ours, theirs in compared
    ]


def in_bf16(fallback: torch.nn.Module, *, hu: torch.Tensor, top: dict[str, Any]) -> dict[str, Any]:
    """Compare bf16, as ``ct-cncl denoise --precision bf16`` uses it, with fp32: speed, and difference of the shipped weights' result."""
    device = next(fallback.parameters()).device
    try:
        model = open_weights(None, device).network
    except CheckpointError:
        model = fallback
    low = in_precision(model, device=device, precision="bf16")
    image = to_network(hu).to(device)
    with torch.inference_mode():
        full, took = seconds(lambda: model(image)), seconds(lambda: low(image))
        error = HU_RANGE * (low(image) - model(image)).abs()
    off = f", with the shipped weights; differs from float32 by {error.mean():.2f} HU on average and {error.max():.1f} HU at most"
    return {
        "what": f"bf16: {took:.3f} s a slice{'' if model is fallback else off}; {top['what']}",
        "ratio": full / took,
        "ours": took,
    }


def main() -> None:
    """Measure, and print ratios first."""
    parser = options(__doc__)
    parser.add_argument("--scan", type=Path, help="NIfTI file on which bf16 is compared with fp32, in HU")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 64 if asked.quick else 512
    top = ceiling(device, quick=asked.quick)
    models = {name: network(name).eval().to(device) for name in ("cncl_fast", *RIVALS)}
    title = f"{side} x {side}, network alone, {torch.get_num_threads()} threads"
    took, ratios = against_rivals(models, side=side, title=title)
    results: list[dict[str, Any]] = [top, *ratios]
    for name in models:
        work = gmac(network_without_weights(definition(name)), size=side)
        floor = 2e9 * work / top["flops_per_second"]
        results.append(
            {
                "what": f"{name}: {work:.1f} GMAC, floor {floor:.3f} s, {100 * floor / took[name]:.0f} % of the ceiling reached",
                "floor": floor,
                "fraction_of_ceiling": floor / took[name],
            }
        )
    results.append(
        in_bf16(
            models["cncl_fast"],
            hu=slice_of(asked.scan, side),
            top=ceiling(device, quick=asked.quick, dtype=torch.bfloat16),
        )
    )
    batches, sides = ((1, 2), (32, 64)) if asked.quick else ((1, 2, 4, 8), (256, 512, 768, 1024))
    fast = models["cncl_fast"]
    by_batch = [(batch, 1 / per_slice(fast, side=side, batch=batch, repeats=2)) for batch in batches]
    by_side = [(pixels, per_slice(fast, side=pixels, repeats=2)) for pixels in sides]
    names = ("narrow", "cncl_fast") if asked.quick else ("narrow", "width16", "cncl_fast", "width32", "paper")
    costs = {name: measure_in_process(definition(name), size=side, repeats=1, threads=asked.threads) for name in names}
    macs = {name: gmac(network_without_weights(definition(name)), size=side) for name in names}
    results.append(
        {
            "curves": [
                curve(
                    "Slices a second by batch (cncl_fast)", "slices at once", "slices/s", {f"{side} x {side}": by_batch}
                ),
                curve("Seconds a slice by its size (cncl_fast)", "pixels a side", "s", {"cncl_fast": by_side}),
                curve(
                    "Seconds by work",
                    "GMAC a slice",
                    "s",
                    {name: [(macs[name], costs[name].seconds)] for name in names},
                ),
                curve(
                    "Memory by work",
                    "GMAC a slice",
                    "MiB",
                    {name: [(macs[name], costs[name].peak_mib)] for name in names},
                ),
            ]
        }
    )
    report(results, asked)


if __name__ == "__main__":
    main()
