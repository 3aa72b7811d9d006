"""Denoise long DICOM series with ``ct-cncl denoise``: seconds, slices per second, share outside the network, peak memory.

    python benchmarks/denoise_series.py                                       1200 slices with cncl_fast: about 5 min on two cores
    python benchmarks/denoise_series.py --slices 30 100 300 1000              time grows with the slices, memory does not
    python benchmarks/denoise_series.py --slices 300 --way streamed whole     compared with the bundle's inference.json, which holds the
    volume
    python benchmarks/denoise_series.py --way idle                            everything but the network (strength 0)
    python benchmarks/denoise_series.py --slices 8 --variant paper            the paper's CNCL, which is slow
    python benchmarks/denoise_series.py --slices 300 --paper 6 --precision fp32 bf16    compared with the paper's CNCL on 6 slices
    python benchmarks/denoise_series.py --series DICOM_FOLDER --weights RUN/best.pt     a real series and trained weights

Without --weights the networks are untrained: speed and memory do not depend on the weights. Each measurement runs in its own
process, and the memory that imports alone take is listed separately. Prints the rows of a Markdown table that begins with slices per
second as a multiple of the first row's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WAYS = ("streamed", "whole", "idle")


def write_series(folder: Path, slices: int, side: int, number: int = 4) -> None:
    """Write a noisy cylinder as a thin-slice CT series: unsigned, 12 bits. ``number`` goes into its UIDs."""
    from pydicom.dataset import Dataset, FileMetaDataset

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    radius = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    body = np.where(radius < 0.8, 1064, 24)
    for k in range(slices):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", f"1.2.{number}", "1.2.5"
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.PatientID = "CT", 2, k + 1, "synthetic"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = side, side, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [0.7, 0.7], "0.625", [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-179.0, -179.0, 0.625 * k]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        ds.PixelData = (body + rng.normal(0, 20, body.shape)).clip(0, 4095).astype("<u2").tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        ds.save_as(part / f"{k:05d}.dcm", enforce_file_format=True)
    part.replace(folder)


def untrained(folder: Path, variant: str) -> Path:
    """Write best.pt and config.json of an untrained network; "paper" is train.json without an overlay."""
    import torch
    from monai.bundle import ConfigParser

    from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
    from ct_cncl.pipeline.workflow.overlays import variant as named

    config = named(variant).config()
    config = {key: config[key] for key in NETWORK_KEYS if key in config}
    network = ConfigParser(config).get_parsed_content("network_def")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"network_def": network.state_dict()}, folder / "best.pt")
    return folder / "best.pt"


def whole_volume(source: Path, out: Path, weights: Path, precision: str) -> float:
    """Run the bundle's inference.json: read, denoise and write the whole volume. Returns NaN: the network's time is unknown."""
    from ct_cncl.pipeline.workflow.definition import network_config
    from ct_cncl.pipeline.workflow.run import build_workflow, config_file, run_workflow

    overrides = {
        "dataset_dir": str(source), "output_dir": str(out), "checkpoint": str(weights), "progress": False, "batch_size": 2,
        "precision": precision,
    } | network_config(weights)  # fmt: skip
    run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))
    return float("nan")


def streamed(source: Path, out: Path, weights: Path, precision: str, *, strength: float) -> float:
    """Run what ``ct-cncl denoise`` does. Returns the seconds within the network."""
    from ct_cncl.pipeline.inference.api import denoise_scans

    denoise_scans(source, out, weights=weights, strength=strength, precision=precision, progress=False)
    return float(json.loads(next(out.rglob("*_denoised.json")).read_text())["network_seconds"])


def measured(way: str, precision: str, source: Path, out: Path, weights: Path, *, threads: int) -> dict[str, float]:
    """Take one measurement, in this process."""
    import torch

    import ct_cncl.pipeline.inference.api  # noqa: F401
    from ct_cncl.pipeline.ablation.forward_cost import memory_mib

    torch.set_num_threads(threads)
    memory = memory_mib("VmHWM")
    started, used = time.perf_counter(), time.process_time()
    if way == "whole":
        network = whole_volume(source, out, weights, precision)
    else:
        network = streamed(source, out, weights, precision, strength=float(way == "streamed"))
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - used,
        "network": network,
        "before_gib": memory / 2**10,
        "peak_gib": memory_mib("VmHWM") / 2**10,
    }


class Table:
    """Rows of a Markdown table, printed as they are measured; ratios are to the first row."""

    def __init__(self) -> None:
        self.first: float | None = None
        print(
            "| ratio | network | precision | way | slices | s | slices/s | outside the network | CPU ms a slice | peak GiB | peak during imports |"
        )
        print("|---:|---|---|---|---|---|---|---|---|---|---|", flush=True)

    def add(self, variant: str, precision: str, way: str, slices: int, found: dict[str, float]) -> None:
        """Print one row."""
        seconds = found["seconds"]
        rate = slices / seconds
        self.first = self.first or rate
        outside = "" if found["network"] != found["network"] else f"{100 * (1 - found['network'] / seconds):.1f} %"
        print(
            f"| {rate / self.first:.1f} | {variant} | {precision} | {way} | {slices} | {seconds:.1f} | {rate:.2f} | {outside} | "
            f"{1000 * found['cpu'] / slices:.0f} | {found['peak_gib']:.2f} | {found['before_gib']:.2f} |",
            flush=True,
        )


def in_own_process(
    asked: argparse.Namespace, *, way: str, precision: str, source: Path, weights: str | Path
) -> dict[str, float]:
    """Take one measurement in a fresh process."""
    out = asked.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        __file__,
        "--threads",
        str(asked.threads),
        "--one",
        way,
        precision,
        str(source),
        str(out),
        str(weights),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(out, ignore_errors=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def made(asked: argparse.Namespace, slices: int) -> Path:
    """Folder of a series with this number of slices; written if it is missing."""
    source = asked.work / f"series{slices}x{asked.side}"
    if not source.is_dir():
        write_series(source, slices, asked.side)
    return source


def main() -> None:
    """Take all the measurements asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[1200])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--way", nargs="+", choices=WAYS, default=["streamed"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16", "auto"), default=["fp32"])
    parser.add_argument("--variant", default="cncl_fast", help="an overlay's name, or paper")
    parser.add_argument("--paper", type=int, default=0, metavar="N", help="first measure the paper's CNCL on N slices")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--series", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ct-cncl-benchmark")
    parser.add_argument(
        "--one", nargs=5, help=argparse.SUPPRESS
    )  # used by in_own_process: way, precision, source, out, weights
    asked = parser.parse_args()
    if asked.one:
        way, precision, *paths = asked.one
        print(json.dumps(measured(way, precision, *map(Path, paths), threads=asked.threads)))
        return
    weights = asked.weights or untrained(asked.work / f"weights_{asked.variant}", asked.variant)
    variant = asked.weights.parent.name if asked.weights else asked.variant
    table = Table()
    if asked.paper:
        paper = untrained(asked.work / "weights_paper", "paper")
        for precision in asked.precision:
            found = in_own_process(
                asked, way="streamed", precision=precision, source=made(asked, asked.paper), weights=paper
            )
            table.add("paper", precision, "streamed", asked.paper, found)
    for slices in asked.slices if asked.series is None else [len(list(asked.series.iterdir()))]:
        source = asked.series or made(asked, slices)
        for way in asked.way:
            for precision in asked.precision:
                found = in_own_process(asked, way=way, precision=precision, source=source, weights=weights)
                table.add(variant, precision, way, slices, found)


if __name__ == "__main__":
    main()
