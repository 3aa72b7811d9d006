"""Network interpolation between two checkpoints (ESRGAN, Wang et al. 2018, sec. 3.4)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ct_cncl.pipeline.common.checkpoint_file import BEST, NETWORK_KEY, load_file, network_state
from ct_cncl.pipeline.common.csv_files import write_csv
from ct_cncl.pipeline.common.errors import CheckpointError, ConfigError
from ct_cncl.pipeline.common.extras import require
from ct_cncl.pipeline.handlers.checkpoints import save_file
from ct_cncl.pipeline.interpolation.alpha_sweep import ScanPoint, SliceEvaluator, curve_picture
from ct_cncl.pipeline.training.trained import trained_network
from ct_cncl.pipeline.weights.domain import TRAINED_ON_FILE, joint_domain
from ct_cncl.pipeline.weights.load import described_training
from ct_cncl.pipeline.workflow.definition import network_config
from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.hu import HU_RANGE
from ct_cncl.transforms.common.json_values import read_json
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.dataset.datalist import entries, read_datalist

CURVE = ("curve.csv", "curve.svg")
"""Files that :func:`scan_alpha` writes."""
BEGINNINGS = ("init_std", "zero_start")
"""Keys of a network's definition that only set its initial weights, not what it computes."""


def interpolated(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], *, alpha: float
) -> dict[str, torch.Tensor]:
    """``alpha * first + (1 - alpha) * second`` of two state dicts; integers are taken from the nearer one.

    Args:
        first: state dict f.
        second: state dict g of the same network.
        alpha: weight of ``first``, 0 to 1.

    Returns:
        A state dict with the types of ``first``, computed in float64; exactly ``first`` at 1 and ``second`` at 0.

    Raises:
        ValueError: ``alpha`` is outside 0 to 1.
        CheckpointError: the state dicts are of different networks.

    >>> interpolated({"w": torch.tensor(1.0)}, {"w": torch.tensor(3.0)}, alpha=0.75)
    {'w': tensor(1.5000)}
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"Expected an alpha from 0 to 1, but got {alpha}.")
    odd = sorted(set(first) ^ set(second)) or [name for name in first if first[name].shape != second[name].shape]
    if odd:
        raise CheckpointError(
            f"Expected two checkpoints of one network, but {odd[0]} differs between them ({len(odd)} tensors differ). Train "
            "the second from the first (start_from), or with the same overlays."
        )
    between = {}
    for name, own in first.items():
        other = second[name]
        if own.is_floating_point():
            between[name] = (alpha * own.double() + (1 - alpha) * other.double()).to(own.dtype)
        else:
            between[name] = own if alpha >= 0.5 else other
    return between


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of a run: ``best.pt`` in its folder, or the file itself."""
    return run / BEST if run.is_dir() else run


def load_pair(first: Path, second: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """State dicts of two checkpoints, whose networks must have the same definition.

    Raises:
        CheckpointError: a checkpoint is missing or unreadable.
        ConfigError: one has no config next to it, or they define different networks.
    """
    states = [network_state(load_file(path)) for path in (first, second)]
    if _function(network_config(first)) != _function(network_config(second)):
        raise ConfigError(
            f"Expected two runs of one network, but {first.parent} and {second.parent} define different ones. Train the "
            "second from the first (start_from), or with the same overlays."
        )
    return states[0], states[1]


def _function(definition: Any) -> Any:
    """A network's definition without :data:`BEGINNINGS`; older runs, which lack ``context_slices``, have one slice."""
    if isinstance(definition, Mapping):
        kept = {key: _function(value) for key, value in definition.items() if key not in BEGINNINGS}
        return kept | ({"context_slices": kept.get("context_slices", 1)} if "network_def" in kept else {})
    return [_function(value) for value in definition] if isinstance(definition, list) else definition


def interpolate(first: Path, second: Path, *, alpha: float, out: Path, overwrite: bool = False) -> Path:
    """Write the network between two checkpoints to a folder that ``evaluate`` and ``denoise --weights`` accept.

    Args:
        first: run or checkpoint f.
        second: run or checkpoint g of the same network.
        alpha: weight of ``first``, 0 to 1.
        out: folder of ``best.pt``, ``config.json`` (that of ``first``, or the network's definition for weights in a bundle),
            ``trained_on.json`` (what both were trained on) and ``interpolation.json`` (alpha and both checkpoints).
        overwrite: replace an earlier interpolation.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: ``alpha`` is outside 0 to 1.
        CheckpointError: a checkpoint is missing or unreadable, or they are of different networks.
        ConfigError: a checkpoint has no config next to it, or they define different networks.
        OutputError: the folder already holds weights, or another process is writing to it.
    """
    with alone_in(out):
        return _interpolate(checkpoint_of(first), checkpoint_of(second), alpha=alpha, out=out, overwrite=overwrite)


def _interpolate(first: Path, second: Path, *, alpha: float, out: Path, overwrite: bool) -> Path:
    state = interpolated(*load_pair(first, second), alpha=alpha)
    _refuse_existing(out, overwrite=overwrite)
    record = {
        "alpha": alpha,
        "first": {"file": first.name, "sha256": file_checksum(first)},
        "second": {"file": second.name, "sha256": file_checksum(second)},
    }
    own = first.parent / "config.json"
    config = own.read_bytes() if own.is_file() else json.dumps(network_config(first), indent=2).encode() + b"\n"
    trained_on = joint_domain(described_training(path) for path in (first, second))
    with replacing(out / "interpolation.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with replacing(out / "config.json") as temporary:
        temporary.write_bytes(config)
    if trained_on:
        with replacing(out / TRAINED_ON_FILE) as temporary:
            temporary.write_text(json.dumps(trained_on, indent=2) + "\n", encoding="utf-8")
    with replacing(out / BEST) as temporary:
        save_file({NETWORK_KEY: state}, temporary)
    return out / BEST


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if (out / BEST).exists() and not (overwrite and (out / "interpolation.json").is_file()):
        raise OutputError(
            f"Expected a folder without weights in {out}, but it holds {BEST}. Choose another folder, or replace an earlier "
            "interpolation with --overwrite."
        )


def scan_alpha(
    first: Path,
    second: Path,
    *,
    alphas: Sequence[float],
    out: Path,
    data: Path | None = None,
    split: str = "validation",
    max_slices: int | None = None,
    device: str = "auto",
) -> list[ScanPoint]:
    """Measure PSNR and NPS distance between g (alpha 0) and f (alpha 1); writes ``curve.csv`` and ``curve.svg``.

    Args:
        first: run or checkpoint f.
        second: run or checkpoint g of the same network.
        alphas: weights of ``first``.
        out: folder of both files.
        data: data set; None takes that of f's run.
        split: "training", "validation" or "test".
        max_slices: largest number of slices, evenly spaced; None takes all.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The figures of the input, then one point per alpha.

    Raises:
        CheckpointError: a checkpoint is missing or unreadable, or they are of different networks.
        ConfigError: a checkpoint has no config next to it, they define different networks, the device is unknown, or matplotlib
            is missing.
        DataError: the data set cannot be used, or has no uniform soft tissue.
    """
    from ct_cncl.pipeline.common.devices import checked_device

    require("matplotlib", extra="report", purpose="to draw curve.svg")
    first, second = checkpoint_of(first), checkpoint_of(second)
    states = load_pair(first, second)
    if data is None:
        config = first.parent / "config.json"
        found = read_json(config).get("dataset_dir") if config.is_file() else None
        if not isinstance(found, str):
            raise ConfigError(
                f"Expected --data, since no config next to {first} names a data set, but got none. Name one."
            )
        data = Path(found)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else checked_device(device)
    judge = SliceEvaluator(
        entries(read_datalist(data), split),
        max_slices=max_slices,
        device=torch.device(name),
        context_slices=network_config(first).get("context_slices", 1),  # runs of earlier versions lack it
    )
    network = trained_network(first).to(judge.device)
    points = [judge.input()]
    with tqdm(total=len(alphas) * len(judge.pairs), desc="alpha", unit="slice", disable=not sys.stderr.isatty()) as bar:
        for alpha in alphas:
            network.load_state_dict(interpolated(*states, alpha=alpha))
            points.append(judge.network(network, alpha, bar))
    rows = [
        ["input" if p.alpha is None else p.alpha, HU_RANGE, f"{p.psnr:.4f}", f"{p.nps_distance:.5f}"] for p in points
    ]
    write_csv(out / CURVE[0], [["alpha", "data_range_hu", "psnr", "nps_distance"], *rows])
    with replacing(out / CURVE[1]) as temporary:
        temporary.write_text(curve_picture(points), encoding="utf-8")
    return points


def interpolate_and_scan(
    first: Path,
    second: Path,
    *,
    alpha: float,
    steps: int,
    out: Path,
    data: Path | None = None,
    split: str = "validation",
    max_slices: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> list[ScanPoint]:
    """Run :func:`interpolate`, and :func:`scan_alpha` at ``steps`` alphas from 0 to 1 if there are at least 2.

    Returns:
        The points of the scan; empty without one.

    Raises:
        ValueError: ``steps`` is 1 or negative, or ``alpha`` is outside 0 to 1.

    It also raises the errors of :func:`interpolate` and :func:`scan_alpha`, before anything is written.
    """
    if steps < 0 or steps == 1:
        raise ValueError(f"Expected 0 or at least 2 alphas to scan, but got {steps}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"Expected an alpha from 0 to 1, but got {alpha}.")
    _refuse_existing(out, overwrite=overwrite)
    points = []
    if steps:  # first, so that nothing is written if data, split or device is wrong
        alphas = [number / (steps - 1) for number in range(steps)]
        points = scan_alpha(
            first, second, alphas=alphas, out=out, data=data, split=split, max_slices=max_slices, device=device
        )
    interpolate(first, second, alpha=alpha, out=out, overwrite=overwrite)
    if not steps:
        for name in CURVE:
            (out / name).unlink(missing_ok=True)  # curves of the replaced interpolation
    return points
