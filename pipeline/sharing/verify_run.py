"""The part of ``ct-cncl verify`` that runs a bundle, in a process that starts in its folder and so uses the code it carries.

Run it as a script: ``python -c "$(cat verify_run.py)" SCRATCH``. It prints one JSON line per check.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUNDLE, TOLERANCE_HU = Path.cwd(), 0.5
_CONFIGS = BUNDLE / "configs"
META, INFERENCE = str(_CONFIGS / "metadata.json"), str(_CONFIGS / "inference.json")


class Skipped(Exception):  # noqa: N818
    """The check cannot be made here; the message says why."""


def network_in_out(_: Path) -> str:
    """Check that the network maps one tensor to one tensor, as the metadata state."""
    from monai.bundle import verify_net_in_out

    verify_net_in_out(net_id="network_def", meta_file=META, config_file=INFERENCE, device="cpu", any=64)
    return "network_def"


def properties_of_inference(scratch: Path) -> str:
    """Check that everything that MONAI requires of an inference workflow can be built."""
    return _missing("infer", INFERENCE, dataset_dir=str(_scan(scratch)), output_dir=str(scratch / "infer"))


def properties_of_training(scratch: Path) -> str:
    """Check that everything that MONAI requires of a training workflow can be built, on a data set made from the example."""
    options = {"dataset_dir": str(_dataset(scratch)), "output_dir": str(scratch / "train"), "patches#size": 32}
    return _missing("train", str(_CONFIGS / "train.json"), **options)


def exports_equal(scratch: Path) -> str:
    """Check that model.ts, a new export of it by MONAI, and model.onnx give the results of model.pt."""
    import torch
    from monai.bundle import ckpt_export

    weights = str(BUNDLE / "models/model.pt")
    again = scratch / "again.ts"
    ckpt_export(net_id="network_def", filepath=str(again), ckpt_file=weights, meta_file=META, config_file=INFERENCE)
    slices = json.loads(Path(INFERENCE).read_text(encoding="utf-8")).get("context_slices", 1)
    image = torch.rand(1, int(slices), 71, 123, generator=torch.Generator().manual_seed(0))
    network = _network(weights)
    with torch.inference_mode():
        expected = network(image)
        files = {"model.ts, exported again": again, "model.ts": BUNDLE / "models/model.ts"}
        results = {name: torch.jit.load(str(path))(image) for name, path in files.items() if path.is_file()}
    said = ""
    if (BUNDLE / "models/model.onnx").is_file():
        try:
            import onnxruntime

            session = onnxruntime.InferenceSession(
                str(BUNDLE / "models/model.onnx"), providers=["CPUExecutionProvider"]
            )
            results["model.onnx"] = torch.from_numpy(session.run(["result"], {"image": image.numpy()})[0])
        except ImportError:
            said = "; model.onnx not checked: ONNX Runtime is not installed"
    far = {name: float((result - expected).abs().max()) * 4096 for name, result in results.items()}
    bad = [f"{name} differs from model.pt by {hu:.3g} HU" for name, hu in far.items() if not hu < TOLERANCE_HU]
    if bad:
        raise ValueError("; ".join(bad))
    return f"{', '.join(far)} within {max(far.values()):.2g} HU of model.pt{said}"


def example_equal(scratch: Path) -> str:
    """Check that the bundle's inference on its example gives the stored result."""
    import nibabel as nib
    import numpy as np
    from monai.bundle import ConfigWorkflow

    if not (BUNDLE / "example/scan.nii").is_file():
        raise Skipped("the bundle has no example")
    out = scratch / "example"
    workflow = ConfigWorkflow(
        config_file=INFERENCE,
        workflow_type="infer",
        dataset_dir=str(BUNDLE / "example/scan.nii"),
        output_dir=str(out),
        device="$torch.device('cpu')",
        progress=False,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    stored: Any = nib.load(BUNDLE / "example/scan_denoised.nii")
    result: Any = nib.load(out / "scan_denoised.nii")
    far = float(np.abs(result.get_fdata() - stored.get_fdata()).max())
    if not far < TOLERANCE_HU or not np.array_equal(result.affine, stored.affine):
        raise ValueError(f"the result differs from the stored one by {far:.3g} HU")
    return f"within {far:.2g} HU of the stored result"


def _network(weights: str) -> Any:
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(INFERENCE)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network


def _missing(kind: str, config: str, **options: Any) -> str:
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(config_file=config, workflow_type=kind, device="$torch.device('cpu')", **options)
    workflow.initialize()
    missing = workflow.check_properties()
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if kind == "train":
        workflow.train_dataset[0]  # the properties are complete even without data, so make one sample
    return "complete"


def _scan(scratch: Path) -> Path:
    """The bundle's example, or a scan of noise if it has none."""
    import nibabel as nib
    import numpy as np

    if (BUNDLE / "example/scan.nii").is_file():
        return BUNDLE / "example/scan.nii"
    path = scratch / "scan.nii"
    if not path.is_file():
        hu = np.random.default_rng(0).normal(40, 20, (64, 64, 3)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.diag([0.8, 0.8, 2.0, 1.0])), path)
    return path


def _dataset(scratch: Path) -> Path:
    """A scan and its result as a prepared data set, one "patient" per split, with noise realizations for random doses."""
    import nibabel as nib
    import numpy as np

    from ct_cncl.transforms.dataset.simulated_cases import Case, Pair
    from ct_cncl.transforms.dataset.writer import write_dataset

    scan: Any = nib.load(_scan(scratch))
    result = BUNDLE / "example/scan_denoised.nii"
    label: Any = nib.load(result) if result.is_file() else scan
    low, full = (volume.get_fdata().astype(np.float32) for volume in (scan, label))
    noise = [lambda seed=seed: np.random.default_rng(seed).normal(0, 10, low.shape) for seed in (1, 2)]

    def pair() -> Pair:
        return Pair(low, full, scan.affine, {"reference": "example"}, noise, {"noise_free": False, "floor_hu": -1024.0})

    splits = {
        name: [Case(f"example-{number}", "scan.nii", 0.25, pair)]
        for number, name in enumerate(("training", "validation", "test"))
    }
    write_dataset(scratch / "data", splits, salt="verify")
    return scratch / "data"


CHECKS: dict[str, Callable[[Path], str]] = {
    "network in and out": network_in_out,
    "properties of inference": properties_of_inference,
    "properties of training": properties_of_training,
    "exports equal": exports_equal,
    "example's result": example_equal,
}


def main(scratch: Path) -> None:
    """Make every check, whatever the results of the others."""
    for name, check in CHECKS.items():
        try:
            state, said = "ok", check(scratch)
        except Skipped as error:
            state, said = "skipped", str(error)
        except Exception as error:  # anything that the bundle's code raises is the result of the check
            while str(error).startswith(("Failed to", "applying")) and error.__cause__ is not None:
                error = error.__cause__  # type: ignore[assignment]
            state, said = "failed", " ".join(str(error).split()) or type(error).__name__
        print(f"\n{MARK}{json.dumps([name, state, said])}", flush=True)  # noqa: T201


MARK = "ct-cncl-check "
"""Beginning of a line with a result; MONAI prints other lines."""

if __name__ == "__main__":
    main(Path(sys.argv[1]))
