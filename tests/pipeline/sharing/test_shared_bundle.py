"""A packed bundle where only its stated requirements are installed: downloaded, loaded, run, trained; and two in one process."""

import functools
import http.server
import json
import shutil
import threading
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fresh_venv import make_venv, run, stated_requirements
from tiny_runs import TINY, fire_arguments
from tiny_weights import tiny_cncl

from ct_cncl.pipeline.sharing.pack import pack

pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def place(packed_tiny, tmp_path_factory):
    """A folder with two packed bundles of different weights, one of them downloaded from a file, and a fresh python."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "dist").mkdir()
    first = Path(shutil.copy(packed_tiny, folder / "dist"))
    pack(folder / "dist", weights=tiny_cncl(folder / "other", seed=1)[0], version="99", changes="other weights")
    with zipfile.ZipFile(first) as archive:
        archive.extract("ct_cncl/configs/metadata.json", folder)
    python = make_venv(folder / "venv", stated_requirements(folder / "ct_cncl"))
    download = ["download", "--name", "ct_cncl", "--url", first.as_uri(), "--bundle_dir", str(folder / "file")]
    run(python, "-m", "monai.bundle", *download, cwd=folder)
    return folder, python


def test_the_project_is_not_there(place):
    folder, python = place
    done = run(python, "-c", "import ct_cncl.pipeline", cwd=folder, check=False)
    assert "No module named 'ct_cncl.pipeline'" in done.stderr or "No module named 'ct_cncl'" in done.stderr
    assert run(python, "-c", "import typer", cwd=folder, check=False).returncode != 0


LOADING = """
import json, sys, torch
from pathlib import Path
from monai.bundle import ConfigWorkflow, download, load

url = sys.argv[1]
for name, folder in (("0", "http"), ("99", "second")):
    download(name="ct_cncl", url=url + "/" + {"0": sys.argv[2], "99": "ct_cncl_v99.zip"}[name], bundle_dir=folder, progress=False)
image = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0))
results = {}
with torch.inference_mode():
    for folder in ("file", "http", "second"):
        module, metadata, _ = load("ct_cncl", bundle_dir=folder, load_ts_module=True)
        results["module " + folder] = module(image)
    assert "ct_cncl.pipeline" not in sys.modules  # no code of either was needed so far
    sys.path.append(str(Path("file/ct_cncl").absolute()))
    for folder in ("file", "http", "second"):
        for kind in ("train", "inference"):
            results[kind + " " + folder] = load("ct_cncl", bundle_dir=folder, workflow_type=kind).eval()(image)
roots = {}
for folder in ("file", "second"):
    workflow = ConfigWorkflow(folder + "/ct_cncl/configs/inference.json", workflow_type="infer")
    workflow.parser.parse()
    workflow.initialize()
    roots[folder] = str(Path(workflow.bundle_root).relative_to(Path.cwd()))
    results["workflow " + folder] = workflow.network_def.eval()(image).detach()
far = {name: float((result - results["module file"]).abs().max()) * 4096 for name, result in results.items()}
own = {name: float((result - results["module second"]).abs().max()) * 4096 for name, result in results.items()}
print("RESULT" + json.dumps([far, own, roots, metadata["version"]]))
"""


def test_download_from_a_server_and_load_two_bundles_in_one_process(place):
    folder, python = place
    served = functools.partial(Quiet, directory=str(folder / "dist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        first = next(path.name for path in (folder / "dist").glob("*.zip") if "v99" not in path.name)
        done = run(python, "-c", LOADING, url, first, cwd=folder)
        server.shutdown()
    far, own, roots, version = json.loads(done.stdout.split("RESULT")[1])
    for name in far:
        assert (own if "second" in name else far)[name] < 0.01, name
        assert (far if "second" in name else own)[name] > 1, name
    assert roots == {"file": "file/ct_cncl", "second": "second/ct_cncl"}
    assert version == "99"


def test_run_inference_gives_the_stored_result(place):
    folder, python = place
    bundle = folder / "file" / "ct_cncl"
    options = ["--config_file", "configs/inference.json", "--dataset_dir", "example/scan.nii", "--output_dir", "../out"]
    run(python, "-m", "monai.bundle", "run", *options, cwd=bundle)
    result, stored = (
        nib.load(path) for path in (folder / "file/out/scan_denoised.nii", bundle / "example/scan_denoised.nii")
    )
    assert np.abs(result.get_fdata() - stored.get_fdata()).max() < 0.01
    assert np.array_equal(result.affine, stored.affine)


def test_run_training_from_the_shipped_weights(place, tiny_dataset):
    folder, python = place
    settings = {key: value for key, value in TINY.items() if "predictor" not in key and "init_std" not in key}
    settings |= {"dataset_dir": str(tiny_dataset), "output_dir": str(folder / "run"), "start_from": "models/model.pt"}
    settings |= {"max_epochs": 1, "optimizer#lr": 0.0, "train#dataloader#num_workers": 0}
    options = ["training", "--config_file", "configs/train.json", *fire_arguments(settings)]
    run(python, "-m", "monai.bundle", "run", *options, cwd=folder / "file" / "ct_cncl")
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("1,4,")
    import torch

    shipped = torch.load(folder / "file/ct_cncl/models/model.pt", weights_only=True)
    trained = torch.load(folder / "run/best.pt", weights_only=True)["network_def"]
    assert all(torch.equal(trained[name], value) for name, value in shipped.items())


def test_an_existing_folder_is_kept_in_silence(place):
    """What the upgrade notes warn of: the new zip is downloaded beside it, and changes nothing."""
    folder, python = place
    download = ["download", "--name", "ct_cncl", "--url", (folder / "dist" / "ct_cncl_v99.zip").as_uri()]
    done = run(python, "-m", "monai.bundle", *download, "--bundle_dir", str(folder / "file"), cwd=folder)
    metadata = json.loads((folder / "file" / "ct_cncl" / "configs" / "metadata.json").read_text())
    assert done.returncode == 0
    assert metadata["version"] != "99"
