import csv
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from ct_cncl.pipeline.noise_measurement.measure import global_noise_level, measure_repeated
from ct_cncl.pipeline.noise_measurement.run import measure_scans
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series import ScanError

RADIUS = np.hypot(*np.meshgrid(np.arange(128) - 63.5, np.arange(128) - 63.5, indexing="ij"))


def volume(level, seed=0):
    hu = np.where(RADIUS < 55, 0.0, -1000.0)[..., None].repeat(2, axis=2)
    return hu + np.random.default_rng(seed).normal(0, level, hu.shape)


def save(path, hu):
    nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), np.diag([-1.0, -1.0, 3.0, 1.0])), path)
    return path


def test_a_folder_of_scans_gives_figures_table_page_and_maps(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.nii.gz", volume(10))
    save(tmp_path / "in" / "b.nii.gz", volume(20))
    save(tmp_path / "in" / "lung.nii.gz", volume(10) - 800)
    a, b = measure_scans(tmp_path / "in", out=tmp_path / "out", maps=True)
    assert a["level_hu"] == pytest.approx(10, rel=0.05)
    assert b["level_hu"] == pytest.approx(2 * a["level_hu"], rel=0.05)
    out, errors = capsys.readouterr()
    assert "level, HU" in out
    assert "lung: not measured: no uniform soft tissue" in errors
    found = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert [row["scan"] for row in found["scans"]] == ["a", "b"]
    assert len(found["not_measured"]) == 1
    assert "<svg" in (tmp_path / "out" / "noise.html").read_text()
    assert (tmp_path / "out" / "noise.csv").read_text().count("\n") == 3
    image = nib.load(tmp_path / "out" / "a_noise_map.nii.gz")
    assert image.get_fdata()[64, 64].mean() == pytest.approx(10, rel=0.5)
    np.testing.assert_array_equal(image.affine, np.diag([-1.0, -1.0, 3.0, 1.0]))
    with pytest.raises(OutputError, match="--overwrite"):
        measure_scans(tmp_path / "in", out=tmp_path / "out")


def test_a_repetition_gives_the_exact_level(tmp_path):
    first, second = save(tmp_path / "a.nii.gz", volume(10)), save(tmp_path / "b.nii.gz", volume(10, seed=1))
    (row,) = measure_scans(first, repeat=second)
    assert row["by_subtraction"]["level_hu"] == pytest.approx(10, rel=0.02)


@pytest.fixture
def found(tmp_path, capsys):
    """Measure volumes that lie in one folder; what the others are subtracted from, by name."""

    def run(**volumes):
        for name, hu in volumes.items():
            save(tmp_path / f"{name}.nii.gz", hu)
        rows = measure_scans(tmp_path)
        return {row["scan"]: row.get("by_subtraction") for row in rows}, capsys.readouterr().out

    return run


def test_two_scans_of_one_object_in_a_folder_give_the_exact_level(found):
    rows, said = found(a=volume(10), b=volume(10, seed=1))
    assert [rows[name]["level_hu"] for name in "ab"] == [pytest.approx(10, rel=0.02)] * 2
    assert (rows["a"]["other"], rows["b"]["other"]) == ("b", "a")
    assert "a: by subtraction of b 10" in said.replace("9.9", "10.")


def test_a_third_scan_is_subtracted_from_the_one_before(found):
    rows, _ = found(a=volume(10), b=volume(10, seed=1), c=volume(10, seed=2))
    assert [rows[name]["other"] for name in "abc"] == ["b", "a", "b"]


OTHER = np.where(np.hypot(*np.meshgrid(np.arange(128) - 40, np.arange(128) - 80, indexing="ij")) < 20, 60.0, 0.0)[
    ..., None
]


@pytest.mark.parametrize(
    "second",
    [
        volume(10),  # a copy
        volume(20, seed=1),  # another dose
        volume(8),  # the same noise, less of it
        volume(10, seed=1) + OTHER + 40 * np.sin(np.arange(128) / 4)[:, None, None],  # another object
        np.concatenate([volume(10, seed=1)] * 2, axis=2),  # another grid
    ],
    ids=["copy", "dose", "denoised", "object", "grid"],
)
def test_what_is_no_repetition_is_not_subtracted(found, second):
    rows, _ = found(a=volume(10), b=second)
    assert list(rows.values()) == [None] * len(rows)


def test_the_published_level_is_the_mode():
    assert global_noise_level(volume(10), (1.0, 1.0)) == pytest.approx(10, rel=0.1)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ScanError, match="no uniform soft tissue"):
        measure_scans(save(tmp_path / "a.nii.gz", volume(10) - 800))
    with pytest.raises(ValueError, match="Expected --out"):
        measure_scans(tmp_path / "a.nii.gz", maps=True)
    with pytest.raises(ValueError, match="one object on one grid"):
        measure_repeated(volume(1), volume(1)[:64], (1.0, 1.0))
    with pytest.raises(ValueError, match="the same pixels twice"):
        measure_repeated(volume(1), volume(1), (1.0, 1.0))


def test_scans_of_one_name_have_maps_of_their_own_and_names_are_data(tmp_path, capsys):
    for folder, level in (("one", 10), ("two", 20)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        save(tmp_path / "in" / folder / "=1+1.nii.gz", volume(level))
    save(tmp_path / "in" / "a\x1b]0;b.nii.gz", volume(10))
    measure_scans(tmp_path / "in", out=tmp_path / "out", maps=True)
    maps = [tmp_path / "out" / folder / "=1+1_noise_map.nii.gz" for folder in ("one", "two")]
    levels = [float(nib.load(path).get_fdata()[RADIUS < 20].mean()) for path in maps]
    assert levels[1] / levels[0] == pytest.approx(2, rel=0.1)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "a\\x1b]0;b" in printed
    cells = {row[0] for row in csv.reader((tmp_path / "out" / "noise.csv").open())}
    assert {"one/=1+1", "two/=1+1"} <= cells
    save(tmp_path / "=1+1.nii.gz", volume(10))
    measure_scans(tmp_path / "=1+1.nii.gz", out=tmp_path / "single")
    assert [row[0] for row in csv.reader((tmp_path / "single" / "noise.csv").open())] == ["scan", "'=1+1"]


def test_a_map_that_cannot_be_written_ends_no_other_scan(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        save(tmp_path / "in" / f"{name}.nii.gz", volume(10))
    (tmp_path / "out" / "a_noise_map.nii.gz").mkdir(parents=True)  # a folder lies where the map is to go
    (row,) = measure_scans(tmp_path / "in", out=tmp_path / "out", maps=True)
    assert row["scan"] == "b"
    (reason,) = json.loads((tmp_path / "out" / "noise.json").read_text())["not_measured"]
    assert reason.startswith("a: not measured: Expected to write")


def test_two_runs_into_one_folder_are_kept_apart(tmp_path):
    scan = save(tmp_path / "a.nii.gz", volume(10))
    code = "import sys; from ct_cncl.transforms.common.locks import alone_in\nwith alone_in(sys.argv[1]): print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"process {other.pid}"):
            measure_scans(scan, out=tmp_path / "out")
        other.communicate(b"\n")
    assert measure_scans(scan, out=tmp_path / "out")
