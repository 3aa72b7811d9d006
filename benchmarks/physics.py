"""Projection and back projection compared with common tools: same slice, same geometry, same process.

    .venv/bin/python benchmarks/physics.py [--size 512] [--repeats 3] [--json FILE]

scikit-image (parallel beam), ASTRA (flat-detector fan beam, CPU) and deepinv (parallel beam) take part if they are installed; none is a
dependency: `pip install astra-toolbox deepinv` (ASTRA also needs nvidia-cuda-runtime-cu12 and nvidia-cufft-cu12). With a CUDA device, the
torch backend processes a batch of 32 slices. Ratios come first: above 1, this code is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ct_cncl.transforms.physics import FanBeam, Geometry, ParallelBeam, fbp, low_contrast_phantom, phantom_hu, project

MU_WATER = 0.0192
FIELD_MM = 350.0


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of ``repeats`` calls, after one that compiles and warms up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def ours(image: np.ndarray, pixel: float, geometry: Geometry, repeats: int) -> tuple[float, float, np.ndarray]:
    """Seconds of projection and of filtered back projection, and the sinogram."""
    shape, pixels = (image.shape[0], image.shape[1]), (pixel, pixel)
    sinogram = project(image, pixels, geometry)
    forward = seconds(lambda: project(image, pixels, geometry), repeats)
    return forward, seconds(lambda: fbp(sinogram, geometry, shape, pixels), repeats), sinogram


def against_scikit_image(image: np.ndarray, pixel: float, repeats: int) -> dict[str, Any]:
    """720 parallel views: radon + iradon of scikit-image."""
    from skimage.transform import iradon, radon

    geometry = ParallelBeam.for_image((image.shape[0], image.shape[1]), (pixel, pixel), 720)
    forward, backward, sinogram = ours(image, pixel, geometry, repeats)
    angles = np.degrees(geometry.angles)
    theirs = radon(image, angles, circle=False)
    radon_s = seconds(lambda: radon(image, angles, circle=False), 1)
    iradon_s = seconds(lambda: iradon(theirs, angles, output_size=image.shape[0], filter_name="hann", circle=False), 1)
    difference = abs(float(theirs.max()) * pixel / float(sinogram.max()) - 1)
    return {
        "what": "parallel beam, 720 views: project + fbp against scikit-image radon + iradon",
        "ratio": (radon_s + iradon_s) / (forward + backward),
        "ratio_forward": radon_s / forward,
        "ratio_backward": iradon_s / backward,
        "ours_s": [forward, backward],
        "theirs_s": [radon_s, iradon_s],
        "interpolations_per_s": [image.size * 720 / forward, image.size * 720 / backward],
        "largest_line_integral_differs_by": difference,
    }


def against_astra(image: np.ndarray, pixel: float, repeats: int) -> dict[str, Any]:
    """736 x 1152 rays on a flat detector: ASTRA's CPU projector and back projector."""
    import astra

    geometry = FanBeam(1152, 736, 1.2858, 595.0, 1085.6, "flat")
    forward, backward, sinogram = ours(image, pixel, geometry, repeats)
    nx, ny = image.shape
    volume = astra.create_vol_geom(ny, nx, -ny / 2 * pixel, ny / 2 * pixel, -nx / 2 * pixel, nx / 2 * pixel)
    rays = astra.create_proj_geom(
        "fanflat", geometry.channel_spacing_mm, 736, geometry.angles, 595.0, geometry.source_detector_mm - 595.0
    )
    times, result = {}, np.zeros(1)
    for name in ("line_fanflat", "strip_fanflat"):
        projector = astra.create_projector(name, rays, volume)
        ids = [astra.data2d.create("-vol", volume, image), astra.data2d.create("-sino", rays, 0)]
        for algorithm, key in (("FP", "forward"), ("BP", "backward")):
            settings = astra.astra_dict(algorithm)
            settings.update({"ProjectorId": projector, "ProjectionDataId": ids[1]})
            settings["VolumeDataId" if algorithm == "FP" else "ReconstructionDataId"] = ids[0]
            handle = astra.algorithm.create(settings)
            times[name, key] = seconds(lambda handle=handle: astra.algorithm.run(handle), 1)
            if algorithm == "FP":
                result = astra.data2d.get(ids[1])
            astra.algorithm.delete(handle)
        astra.data2d.delete(ids)
        astra.projector.delete(projector)
    fastest = min(times["line_fanflat", "forward"], times["strip_fanflat", "forward"])
    fastest_back = min(times["line_fanflat", "backward"], times["strip_fanflat", "backward"])
    return {
        "what": "flat-detector fan beam, 736 x 1152: against ASTRA's faster CPU projector (back projection: ours with filter)",
        "ratio": fastest / forward,
        "ratio_forward": fastest / forward,
        "ratio_backward": fastest_back / backward,
        "ours_s": [forward, backward],
        "theirs_s": [fastest, fastest_back],
        "all_theirs_s": {" ".join(key): value for key, value in times.items()},
        "interpolations_per_s": [image.shape[0] * 736 * 1152 / forward, image.size * 1152 / backward],
        "largest_line_integral_differs_by": abs(float(result.max()) / float(sinogram.max()) - 1),
    }


def against_deepinv(image: np.ndarray, pixel: float, repeats: int) -> dict[str, Any]:
    """720 parallel views: deepinv's Radon transform on the CPU (rotation by grid_sample)."""
    from deepinv.physics.functional import Radon

    geometry = ParallelBeam.for_image((image.shape[0], image.shape[1]), (pixel, pixel), 720)
    forward, backward, _ = ours(image, pixel, geometry, repeats)
    radon = Radon(image.shape[0], theta=torch.linspace(0, 180, 721)[:-1], circle=False)
    tensor = torch.from_numpy(image)[None, None]
    theirs = seconds(lambda: radon(tensor), 1)
    return {
        "what": "parallel beam, 720 views, projection alone: against deepinv's Radon on the CPU",
        "ratio": theirs / forward,
        "ours_s": [forward, backward],
        "theirs_s": [theirs],
    }


def torch_batch(image: np.ndarray, pixel: float, repeats: int) -> dict[str, Any]:
    """The torch backend: 32 slices on a CUDA device, one on the CPU."""
    cuda = torch.cuda.is_available()
    batch = torch.from_numpy(image).to("cuda" if cuda else "cpu").expand(32 if cuda else 1, -1, -1).contiguous()
    geometry = ParallelBeam.for_image((image.shape[0], image.shape[1]), (pixel, pixel), 720)
    size = (image.shape[0], image.shape[1])

    def both() -> None:
        fbp(project(batch, (pixel, pixel), geometry), geometry, size, (pixel, pixel))
        if cuda:
            torch.cuda.synchronize()

    each = seconds(both, repeats if cuda else 1) / batch.shape[0]
    forward, backward, _ = ours(image, pixel, geometry, repeats)
    return {
        "what": f"parallel beam, 720 views, project + fbp a slice: compiled code against the torch backend ({batch.device}, batch of {batch.shape[0]})",
        "ratio": each / (forward + backward),
        "ours_s": [forward, backward],
        "theirs_s": [each],
    }


def floor(image: np.ndarray, repeats: int) -> dict[str, Any]:
    """Additions per second of contiguous float32 rows in numpy, with which the projector is compared: what memory allows."""
    rows = np.ascontiguousarray(np.tile(image, (1, 2)))
    out = np.zeros(rows.shape[1], dtype=np.float32)

    def sweep() -> None:
        for row in rows:
            np.add(out, row, out=out)

    per_second = rows.size / seconds(sweep, repeats)
    return {"what": "floor: contiguous float32 additions in one thread (numpy)", "additions_per_s": per_second}


def main() -> None:
    """Compare with the tools that are installed, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pixel = FIELD_MM / options.size
    hu = phantom_hu(low_contrast_phantom(0.45 * FIELD_MM), (options.size, options.size), (pixel, pixel), samples=2)
    image = ((hu + 1000) * (MU_WATER / 1000)).astype(np.float32)
    peers = {
        "skimage": against_scikit_image,
        "astra": against_astra,
        "deepinv": against_deepinv,
        "torch": torch_batch,
    }
    results = [{**floor(image, options.repeats), "cores": os.cpu_count(), "machine": platform.processor()}]
    print(
        f"{options.size} x {options.size}, {os.cpu_count()} cores; floor {results[0]['additions_per_s']:.3g} additions/s a thread"
    )
    for name, measure in peers.items():
        if importlib.util.find_spec(name) is None:
            print(f"{'':>7}  {name} is not installed: left out")
            continue
        result = measure(image, pixel, options.repeats)
        results.append(result)
        print(f"{result['ratio']:6.1f}x  {result['what']}")
        times = {key: [round(value, 3) for value in result[key]] for key in ("ours_s", "theirs_s")}
        print(f"{'':>9}seconds: ours {times['ours_s']}, theirs {times['theirs_s']}", end="")
        if "interpolations_per_s" in result:
            print("; interpolations/s " + ", ".join(f"{value:.3g}" for value in result["interpolations_per_s"]), end="")
        print()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
