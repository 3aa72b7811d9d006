"""What is refused, and when."""

import numpy as np
import pytest
from low_dose import SIZE, cylinder, run, save
from small_disk import small_disk

from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.series import ScanError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dose_fraction": 0.0}, "dose fraction"),
        ({"dose_fraction": 1.5}, "dose fraction"),
        ({"dose_fraction": float("nan")}, "dose fraction"),
        ({"realizations": 0}, "1 or more realizations"),
        ({"seed": -1}, "seed of 0 or above"),
        ({"calibration": "guess", "incident_photons": None}, "calibration to be one of auto, image, tags, default"),
        ({"calibration": "image"}, "--incident-photons or --calibration"),
        ({"incident_photons": 0.0}, "photons above 0"),
        ({"electronic_variance": -1.0}, "electronic_variance"),
        ({"geometry": "cone"}, "geometry from parallel, mayo"),
        ({"bowtie_mm": 0.0}, "bowtie_mm above 0"),
        ({"compression": "zip"}, "compression to be one of none, jpeg2000, rle"),
        ({"compression": "rle", "nifti": True}, "--nifti or --compress"),
        ({"current_modulation": 2.0}, "current_modulation between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "nowhere", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_tags_that_are_not_there_are_refused_by_name(tmp_path):
    source = save(tmp_path / "a.nii.gz", cylinder())
    with pytest.raises(ScanError, match=r"a.nii.gz: .*no DICOM"):
        run(source, tmp_path / "out", incident_photons=None, calibration="tags")


def test_a_volume_that_is_no_hu_is_refused_by_name(tmp_path):
    source = save(tmp_path / "a.nii.gz", np.full((20, 20, 2), 7, np.int16))
    with pytest.raises(ScanError, match=r"a.nii.gz: .*never below 0"):
        run(source, tmp_path / "out")


@pytest.mark.parametrize("inside", ["", "low"])
def test_results_among_the_scans_are_refused(tmp_path, inside):
    save(tmp_path / "in" / "a.nii.gz", cylinder())
    with pytest.raises(OutputError, match="outside"):
        run(tmp_path / "in", tmp_path / "in" / inside)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.nii.gz"]


def test_beside_a_single_file_is_fine(tmp_path):
    (path,) = run(save(tmp_path / "a.nii.gz", cylinder()), tmp_path)
    assert path == tmp_path / "a_dose0.25_r1.nii.gz"


def test_two_scans_of_one_name_have_results_of_their_own(tmp_path):
    save(tmp_path / "in" / "a.nii.gz", cylinder())
    save(tmp_path / "in" / "a.nii", cylinder())
    assert sorted(path.name for path in run(tmp_path / "in", tmp_path / "out")) == [
        "a_dose0.25_r1.nii",
        "a_dose0.25_r1.nii.gz",
    ]


def test_a_full_disk_leaves_nothing_behind_but_one_line(tmp_path):
    """A real file system of 2 MiB; two results of 0.3 MiB fit, one of 3 MiB does not, and the others are made all the same."""
    for name, slices in (("a", 24), ("b", 240), ("c", 24)):
        save(tmp_path / "in" / f"{name}.nii", np.full((SIZE, SIZE, slices), -1000, np.int16))
    with small_disk(tmp_path / "disk", "2m") as disk:
        with pytest.raises(ScanError, match=r"expected to simulate 3 scans but 1 failed"):
            run(tmp_path / "in", disk / "out", progress=False)
        assert "free space" in (disk / "out" / "manifest.jsonl").read_text()
        assert sorted(path.name for path in (disk / "out").glob("*.nii")) == ["a_dose0.25_r1.nii", "c_dose0.25_r1.nii"]
        assert not (disk / "out" / ".unfinished").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, count):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        run(save(tmp_path / "a.nii.gz", cylinder()), tmp_path / "file" / "out")
    assert count["low_dose"] == 0
