"""Long DICOM series through ``ct-cncl denoise``: seconds, slices a second, the share outside the network, peak memory.

    python benchmarks/denoise_series.py                                       1200 slices with cncl_fast: about 5 min on two cores
    python benchmarks/denoise_series.py --slices 30 100 300 1000              time grows with the slices, memory does not
    python benchmarks/denoise_series.py --slices 300 --way streamed whole     beside the bundle's inference.json, which holds the volume
    python benchmarks/denoise_series.py --way idle                            everything but the network (strength 0)
    python benchmarks/denoise_series.py --slices 8 --variant paper            the paper's CNCL; a slice takes what it takes
    python benchmarks/denoise_series.py --series DICOM_FOLDER --weights RUN/best.pt     real ones

Without --weights the networks are untrained: speed and memory do not depend on what was learned. Each measurement has a
process of its own; what importing needs is not the scan's, and is told apart. Prints rows of a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WAYS = ("streamed", "whole", "idle")


def write_series(folder: Path, slices: int, side: int) -> None:
    """A noisy cylinder; 12 bits, unsigned, implicit geometry of a thin-slice chest and abdomen."""
    from pydicom.dataset import Dataset, FileMetaDataset

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    radius = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    body = np.where(radius < 0.8, 1064, 24)
    for k in range(slices):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.4.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
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
    """best.pt and config.json of a network with its starting weights; "paper" is train.json without an overlay."""
    import torch
    from monai.bundle import ConfigParser

    from ct_cncl.pipeline.variants import variant as named
    from ct_cncl.pipeline.workflow import NETWORK_KEYS

    config = named(variant).config()
    config = {key: config[key] for key in NETWORK_KEYS if key in config}
    network = ConfigParser(config).get_parsed_content("network_def")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"network_def": network.state_dict()}, folder / "best.pt")
    return folder / "best.pt"


def whole_volume(source: Path, out: Path, weights: Path) -> float:
    """The bundle's inference.json: read all, denoise all, write all. Returns what the network took: unknown."""
    from ct_cncl.pipeline.workflow import build_workflow, config_file, network_config, run_workflow

    overrides = {
        "dataset_dir": str(source), "output_dir": str(out), "checkpoint": str(weights), "progress": False, "batch_size": 2,
    } | network_config(weights)  # fmt: skip
    run_workflow(build_workflow([config_file("inference.json")], overrides=overrides, kind="infer"))
    return float("nan")


def streamed(source: Path, out: Path, weights: Path, *, strength: float) -> float:
    """What ``ct-cncl denoise`` does. Returns the seconds within the network."""
    from ct_cncl.pipeline.inference import denoise_scans

    denoise_scans(source, out, weights=weights, strength=strength, progress=False)
    return float(json.loads(next(out.rglob("*_denoised.json")).read_text())["network_seconds"])


def measured(way: str, source: Path, out: Path, weights: Path, threads: int) -> dict[str, float]:
    """One measurement, in this process."""
    import torch

    import ct_cncl.pipeline.inference  # noqa: F401

    torch.set_num_threads(threads)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, used = time.perf_counter(), time.process_time()
    if way == "whole":
        network = whole_volume(source, out, weights)
    else:
        network = streamed(source, out, weights, strength=float(way == "streamed"))
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - used,
        "network": network,
        "before_gib": memory / 2**20,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def row(way: str, variant: str, slices: int, found: dict[str, float]) -> str:
    """One row of the table."""
    seconds = found["seconds"]
    outside = "" if found["network"] != found["network"] else f"{100 * (1 - found['network'] / seconds):.1f} %"
    return (
        f"| {variant} | {way} | {slices} | {seconds:.1f} | {slices / seconds:.2f} | {outside} | {1000 * found['cpu'] / slices:.0f} | "
        f"{found['peak_gib']:.2f} | {found['before_gib']:.2f} |"
    )


def main() -> None:
    """All measurements that are asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[1200])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--way", nargs="+", choices=WAYS, default=["streamed"])
    parser.add_argument("--variant", default="cncl_fast", help="an overlay's name, or paper")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--series", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ct-cncl-benchmark")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # way, source, out, weights: in a process of its own
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one[0], *map(Path, asked.one[1:]), asked.threads)))
        return
    weights = asked.weights or untrained(asked.work / f"weights_{asked.variant}", asked.variant)
    variant = asked.weights.parent.name if asked.weights else asked.variant
    print("| network | way | slices | s | slices/s | outside the network | CPU ms a slice | peak GiB | of it imports |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for slices in asked.slices if asked.series is None else [len(list(asked.series.iterdir()))]:
        source = asked.series or asked.work / f"series{slices}x{asked.side}"
        if not source.is_dir():
            write_series(source, slices, asked.side)
        for way in asked.way:
            out = asked.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            command = [sys.executable, __file__, "--threads", str(asked.threads), "--one", way, source, out, weights]
            done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
            print(row(way, variant, slices, json.loads(done.stdout.splitlines()[-1])), flush=True)
            shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
