"""What is kept from an earlier run, what is made again, and what may not be replaced."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_archive import manifest
from low_dose import cylinder, dicom, record, run, save

from ct_cncl.pipeline.simulation import simulating
from ct_cncl.transforms.series import ScanError, read_scan


def test_finished_results_are_kept_and_missing_ones_made(tmp_path, count):
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.nii.gz", cylinder())
    paths = run(tmp_path / "in", tmp_path / "out", realizations=2)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    paths[2].unlink()
    assert run(tmp_path / "in", tmp_path / "out", realizations=2) == paths
    assert count == {"low_dose": 5, "calibrate": 3}
    assert [path.read_bytes() for path in paths] == [content for content, _ in before]
    assert paths[0].stat().st_mtime_ns == before[0][1]
    run(tmp_path / "in", tmp_path / "out", realizations=3)
    assert count["low_dose"] == 7


def test_an_interruption_leaves_what_was_finished_and_nothing_else(tmp_path, monkeypatch, count):
    source = save(tmp_path / "a.nii.gz", cylinder())
    stream, calls = simulating.stream_slices, []

    def stop(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return stream(*args, **options)

    monkeypatch.setattr(simulating, "stream_slices", stop)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", realizations=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_dose0.25_r1.nii.gz",
        "a_dose0.25_r1.nii.gz.json",
        "manifest.jsonl",
    ]
    assert len(run(source, tmp_path / "out", realizations=2)) == 2
    assert len(calls) == 3


def test_a_volume_whose_record_is_not_complete_is_made_again(tmp_path, count):
    """Killed between volume and record."""
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    found, content = record(path), path.read_bytes()
    (tmp_path / "out" / "a_dose0.25_r1.nii.gz.json").write_text(json.dumps(found | {"state": "unfinished"}))
    run(source, tmp_path / "out")
    assert count["low_dose"] == 2
    assert record(path) | {"seconds": 0} == found | {"seconds": 0}
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"incident_photons": 2e4},
        {"electronic_variance": 5.0},
        {"geometry": "mayo"},
        {"route": "photon_counts"},
        {"bowtie_mm": 200.0},
        {"current_modulation": 0.5},
        {"calibration": "default", "incident_photons": None},
    ],
    ids=str,
)
def test_results_of_other_options_are_replaced_only_on_demand(tmp_path, change):
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    before = path.read_bytes()
    with pytest.raises(ScanError, match="--overwrite"):
        run(source, tmp_path / "out", **change)
    assert path.read_bytes() == before
    run(source, tmp_path / "out", overwrite=True, **change)
    assert path.read_bytes() != before


def test_another_source_a_changed_result_and_a_strange_file_are_not_taken_for_results(tmp_path):
    source = save(tmp_path / "a.nii.gz", cylinder())
    (path,) = run(source, tmp_path / "out")
    save(source, cylinder(seed=1))
    with pytest.raises(ScanError, match="other options|been changed"):
        run(source, tmp_path / "out")
    save(source, cylinder())
    path.write_bytes(path.read_bytes() + b"mine")
    with pytest.raises(ScanError, match="other options|been changed"):
        run(source, tmp_path / "out")
    (tmp_path / "new" / "a_dose0.25_r1.nii.gz").parent.mkdir()
    (tmp_path / "new" / "a_dose0.25_r1.nii.gz").write_text("mine")
    with pytest.raises(ScanError, match="other options|been changed"):
        run(source, tmp_path / "new")
    assert (tmp_path / "new" / "a_dose0.25_r1.nii.gz").read_text() == "mine"


def test_killed_runs_and_two_at_once_end_with_every_result_once(tmp_path):
    """Three are killed as they work; then two share the folder. What comes out is what one run makes."""
    for number in (1, 2, 3):
        dicom(tmp_path / "in" / f"s{number}", cylinder(), number)
    expected = run(tmp_path / "in", tmp_path / "whole", realizations=2, progress=False)
    driver = Path(__file__).with_name("fork_driver.py")
    command = [sys.executable, str(driver), str(tmp_path / "in"), str(tmp_path / "out"), "0.3", "0.5", "0.7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-2:] == ["done", "done"], done.stdout + done.stderr
    for path in expected:
        other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        np.testing.assert_array_equal(read_scan(other).hu, read_scan(path).hu)
    assert len([path for path in (tmp_path / "out").rglob("*_r[12]") if path.is_dir()]) == len(expected) == 6
    assert sorted(line["state"] for line in manifest(tmp_path / "out")) == ["done"] * 6
    assert not (tmp_path / "out" / ".unfinished").exists()
