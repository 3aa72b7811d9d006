"""README's recipes, executed in their order on tiny scans: each leaves the files that README says it leaves."""

import re
import shlex
import shutil

import nibabel as nib
import numpy as np
import pytest
from dicom_archive import write_series
from tiny_runs import ROOT

from ct_cncl.pipeline.cli.app import app
from ct_cncl.transforms.phantom import anatomical_phantom

README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = README[README.index("## Five recipes") : README.index("## In Python")]
COMMANDS = [shlex.split(line) for line in re.findall(r"(?m)^    ct-cncl (.+)$", RECIPES)]
TINY = {
    "train": ["patches.per_epoch=8", "batch_size=4", "patches.size=32", "validate.dataset.max_slices=1", "device=cpu"],
}
"""What a recipe gets besides, so that it takes seconds."""


def noisy(seed, sd):
    hu = anatomical_phantom(seed, slices=2, size=96, region="abdomen").hu
    return np.random.default_rng(seed).normal(hu, sd).clip(-1024).round().astype(np.int16)


def save(path, hu):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([3.0, 3.0, 5.0, 1.0])), path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """The folders that README speaks of, with phantoms of three patients in them."""
    root = tmp_path_factory.mktemp("readme")
    write_series(root / "dicom_folder", 1, slices=2, side=96)
    save(root / "scans/train/a.nii.gz", noisy(2, 10))
    save(root / "scans/val/b.nii.gz", noisy(3, 10))
    for folder, sd in {"full_dose": 5, "low_dose": 20, "denoised_a": 10}.items():
        save(root / folder / "c.nii.gz", noisy(4, sd))
    return root


@pytest.mark.slow
def test_recipes(scans, monkeypatch, capsys):
    monkeypatch.chdir(scans)
    assert [words[0] for words in COMMANDS] == [
        "denoise",
        "simulate",
        "prepare",
        "train",
        "denoise",
        "evaluate",
        "pack",
        "verify",
    ]
    for name, *rest in COMMANDS:
        smaller = [re.sub("max_epochs=.*", "max_epochs=1", word) for word in rest]
        app([name, *smaller, *TINY.get(name, [])], standalone_mode=False)
    (derived,) = {path.parent for path in (scans / "denoised").rglob("*.dcm")}
    assert len(list(derived.glob("*.dcm"))) == 2
    assert (scans / "denoised/manifest.jsonl").is_file()
    low = {path.name for path in (scans / "low").rglob("*")}
    assert {"a_dose0.25_r1.nii.gz", "a_dose0.25_r1.nii.gz.json", "manifest.jsonl"} <= low
    assert {"best.pt", "metrics.csv", "report.html"} <= {path.name for path in (scans / "runs/fast").iterdir()}
    assert {"report.html", "patients.csv", "summary.csv"} <= {path.name for path in (scans / "report").iterdir()}
    assert (scans / "dist/ct_cncl_v0.2.0+ours.zip").is_file()
    assert "FAILED" not in capsys.readouterr().out
    shutil.rmtree(scans)
