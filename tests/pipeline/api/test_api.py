"""What Python users import: the commands as functions, with the same values for arrays as for files."""

import inspect
import pydoc
import re
import rlcompleter
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from ct_cncl import pipeline
from ct_cncl.transforms.physics.dose import DoseSettings
from ct_cncl.transforms.physics.simulation import calibrate, low_dose

PIXEL = 2.5


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(3)
    hu = np.full((96, 96, 2), -1000.0)
    hu[8:88, 16:80] = 40
    return (hu + rng.normal(0, 12, hu.shape)).round().astype(np.int16)


def image(volume):
    found = SimpleITK.GetImageFromArray(volume.T)
    found.SetSpacing((PIXEL, PIXEL, 3.0))
    return found


@pytest.mark.parametrize("name", pipeline.__all__)
def test_every_option_is_named_typed_and_explained(name):
    function = getattr(pipeline, name)
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert f"\n        {parameter.name}: " in function.__doc__
    assert name in dir(pipeline)


def test_unknown_names_are_refused():
    with pytest.raises(ImportError, match="denoize"):
        from ct_cncl.pipeline import denoize  # noqa: F401


def test_a_lower_dose_in_memory_is_that_of_the_physics(volume):
    hu = volume.astype(np.float32)
    settings = DoseSettings(dose_fraction=0.25)
    found = calibrate(hu, (PIXEL, PIXEL), settings, 7, usual_electronics=True)
    expected = low_dose(hu, (PIXEL, PIXEL), found.apply(settings), 7)
    lower = pipeline.simulate(volume, dose=0.25, seed=7, pixel_mm=PIXEL)
    assert lower.dtype == np.int16
    assert np.abs(lower - expected).max() <= 0.501
    assert 1.7 < lower[30:60, 30:60].std() / volume[30:60, 30:60].std() < 2.3  # noise goes with the root of the dose
    as_image = pipeline.simulate(image(volume), dose=0.25, seed=7)
    assert as_image.GetSpacing() == (PIXEL, PIXEL, 3.0)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(as_image).T, lower)
    np.testing.assert_array_equal(pipeline.simulate(volume.T, dose=0.25, seed=7, pixel_mm=PIXEL), lower.T)


def test_noise_in_memory_is_that_of_the_file(volume, tmp_path, capsys):
    nib.save(nib.Nifti1Image(volume, np.diag([-PIXEL, -PIXEL, 3.0, 1])), tmp_path / "scan.nii")
    (of_file,) = pipeline.noise(tmp_path / "scan.nii")
    found = pipeline.noise(volume, pixel_mm=PIXEL)
    assert found["level_hu"] == pytest.approx(12, rel=0.05)
    assert found["level_hu"] == of_file["level_hu"]
    assert pipeline.noise(image(volume))["level_hu"] == of_file["level_hu"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: pipeline.simulate(v, dose=0.25), "pixel_mm=0.7"),
        (pipeline.noise, "pixel_mm=0.7"),
        (lambda v: pipeline.noise(v, pixel_mm=-1), "one number or two, above 0 and below 100, but got -1"),
        (lambda v: pipeline.noise(image(v), pixel_mm=0.7), "since the volume states it"),
        (lambda v: pipeline.simulate(v, dose=1.5, pixel_mm=1), "dose"),
        (lambda v: pipeline.simulate(v, dose="half", pixel_mm=1), "dose fraction above 0 and up to 1 but got 'half'"),
        (lambda v: pipeline.simulate(v, dose=0.5, pixel_mm=1, seed="a"), "seed of 0 or above, but got 1 and 'a'"),
        (lambda v: pipeline.simulate(v, dose=0.5, pixel_mm=1, seed=1.5), "seed of 0 or above, but got 1 and 1.5"),
        (lambda v: pipeline.simulate(v + 2000, dose=0.5, pixel_mm=1), "slope and intercept"),
        (lambda v: pipeline.simulate("scan.nii", dose=0.5), "out=FOLDER"),
        (lambda v: pipeline.noise(v, maps=True, pixel_mm=1), "with a path only"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_cause(volume, call, words):
    with pytest.raises(ValueError, match=words):
        call(volume)


def test_arrays_are_not_paths(volume, tmp_path):
    for call in ((volume, "b"), ("a", volume), ("a", [tmp_path, volume])):
        with pytest.raises(TypeError, match=r"Expected paths of scans, but got .*ct_cncl.pipeline.metrics"):
            pipeline.evaluate(*call, tmp_path / "out")


def test_evaluate_gives_what_its_command_gives(volume, tmp_path):
    for name, shift in (("p1_reference", 0), ("p1_result", 3)):
        nib.save(nib.Nifti1Image(volume + np.int16(shift), np.diag([-2.5, -2.5, 3.0, 1])), tmp_path / f"{name}.nii")
    found = pipeline.evaluate(
        tmp_path / "p1_reference.nii", tmp_path / "p1_result.nii", tmp_path / "out", region="all", progress=False
    )
    (rmse,) = [key for key in found.slice_rows[0].values if key.startswith("rmse")]
    assert [row.values[rmse] for row in found.slice_rows] == pytest.approx([3.0, 3.0])
    assert (tmp_path / "out" / "report.html").is_file()


SCRIPT = """
from pathlib import Path
import numpy as np
import torch
from ct_cncl.pipeline import denoise, evaluate, noise, simulate

volume = np.zeros((8, 8, 2), np.int16)
a: np.ndarray = denoise(volume, strength="low", batch_size=2)
b: dict[str, np.ndarray] = denoise(volume, save=("noise", "removed"))
c: list[Path] = denoise("scan.nii", Path("out"), series=("1",), overwrite=True)
d: np.ndarray = simulate(volume, dose=0.5, pixel_mm=(0.7, 0.7))
e: list[Path] = simulate(Path("scan.nii"), "out", dose=0.5)
f: dict = noise(volume, pixel_mm=0.7)
g: list[dict] = noise("scan.nii", maps=True)
h: object = evaluate("a", ["b", "c"], "out", windows=("chest",)).slice_rows[0].values
"""
WRONG = [
    "denoise(volume, strenght=0.5)",
    "denoise(volume, series=('1',))",
    "denoise(volume, 'out')",
    "denoise('scan.nii')",
    "denoise('scan.nii', 'out', axes='xyz')",
    "denoise(volume, device=0)",
    "denoise([1, 2, 3])",
    "wrong1: list[Path] = denoise(volume)",
    "wrong2: np.ndarray = denoise(volume, save='noise')",
    "simulate(volume)",
    "simulate(volume, dose='0.5')",
    "noise(volume, maps=True)",
    "wrong3: dict = noise('scan.nii')",
    "evaluate('a', 'b')",
    "evaluate('a', 'b', 'out', windows=3)",
]
"""What a type checker must refuse, a line each."""


@pytest.mark.slow
def test_a_users_script_is_type_checked(tmp_path):
    """As installed: the packages say that they are typed. Right calls pass; each wrong one is found in its line."""
    site = tmp_path / "site" / "ct_cncl"
    site.mkdir(parents=True)
    root = Path(pipeline.__file__).parent.parent
    for name in ("pipeline", "transforms"):
        assert (root / name / "py.typed").is_file()
        (site / name).symlink_to(root / name)
    torch = tmp_path / "site" / "torch"  # in the place of the real one, which takes a minute to read
    torch.mkdir()
    (torch / "__init__.pyi").write_text(
        "from typing import Any\nclass Tensor: ...\ndef __getattr__(name: str) -> Any: ...\n"
    )
    right = SCRIPT.rstrip()
    (tmp_path / "script.py").write_text("\n".join([right, *WRONG]) + "\n")
    settings = "[mypy]\nignore_missing_imports = true\nfollow_imports = silent\n[mypy-monai.*,ignite.*]\nfollow_imports = skip\n"
    (tmp_path / "mypy.ini").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "script.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(tmp_path / "site"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(number) for number in re.findall(r"(?m)^script.py:(\d+): error:", done.stdout)}
    first = len(right.splitlines()) + 1
    assert found == set(range(first, first + len(WRONG))), done.stdout + done.stderr


def test_names_and_options_complete_themselves():
    """What a notebook asks: attributes of the package, and the signature of what is called."""
    assert rlcompleter.Completer({"pipeline": pipeline}).complete("pipeline.den", 0) == "pipeline.denoise("
    assert {"strength", "target_dose", "save", "axes"} <= set(inspect.signature(pipeline.denoise).parameters)
    said = pydoc.plain(pydoc.render_doc(pipeline.denoise))
    assert "strength: share of the network's correction to apply" in said
    assert '>>> result = denoise(volume, device="cpu")' in said
