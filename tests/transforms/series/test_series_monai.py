import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from series_files import ct_series, nifti

from ct_cncl.transforms.series import ScanError, read_scan

monai_data = pytest.importorskip("monai.data")
from ct_cncl.transforms.series import LoadScand, SaveScand, scan_datalist  # noqa: E402

SAGITTAL = np.array([[0, 0, 3.0, 1], [0.7, 0, 0, 2], [0, -0.7, 0, 3], [0, 0, 0, 1.0]])


def through_loader(items, tmp_path, change=lambda batch: batch, **options):
    """Load, collate in a DataLoader, `network`, decollate, save: the way inference runs."""
    save = SaveScand("pred", tmp_path / "out", **options)
    loader = monai_data.DataLoader(monai_data.Dataset(items, LoadScand("image")), batch_size=1, num_workers=0)
    for batch in loader:
        assert isinstance(batch["image"], monai_data.MetaTensor)
        batch["pred"] = change(batch["image"])
        for item in monai_data.decollate_batch(batch):
            save(item)
    return save


@pytest.mark.parametrize("plain", [False, True])
def test_identity_network_gives_the_same_files(tmp_path, volume, plain):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    first = nifti(tmp_path / "in" / "a.nii", volume.astype(np.int16), SAGITTAL)
    second = nifti(tmp_path / "in" / "sub" / "a.nii", volume[..., 0], np.diag([-1, 1, 2, 1.0]), endian=">")
    third = nifti(tmp_path / "in" / "c.nii", (volume + 3024).astype("u2"), np.diag([1, 1, -2, 1.0]), 1, -3024)
    before = [path.read_bytes() for path in (first, second, third)]
    # a network that loses the meta tensor must not lose the geometry
    save = through_loader(
        scan_datalist(tmp_path / "in"), tmp_path, (lambda x: x.as_tensor()) if plain else (lambda x: x)
    )
    outputs = [tmp_path / "out" / name for name in ("a_denoised.nii", "sub/a_denoised.nii", "c_denoised.nii")]
    assert [path.read_bytes() for path in outputs] == before
    assert [path.read_bytes() for path in (first, second, third)] == before
    assert sorted(report.path for report in save.reports) == sorted(outputs)


def test_identity_on_dicom(tmp_path):
    stored = ct_series(tmp_path / "in" / "scan", [(0.0, 0.0, 3.0 * k) for k in range(4)])
    through_loader(scan_datalist(tmp_path / "in"), tmp_path)
    image = nib.load(tmp_path / "out" / "scan" / "scan_series002_denoised.nii.gz")
    scan = read_scan(tmp_path / "in")
    np.testing.assert_array_equal(image.get_fdata(), stored.transpose(2, 1, 0) - 1024)
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-6)
    assert image.get_data_dtype() == np.int16


def test_network_sees_slices_last_in_the_canonical_direction(tmp_path, volume):
    path = nifti(tmp_path / "a.nii", volume.astype(np.int16), SAGITTAL)
    image = LoadScand("image")({"image": str(path)})["image"]
    assert image.shape == (1, 5, 4, 3)  # stored axis 0 runs A (turned to P), 1 runs I already, 2 runs R (turned to L)
    np.testing.assert_array_equal(image[0].numpy(), volume[::-1, :, ::-1])
    assert nib.aff2axcodes(image.affine.numpy()) == ("P", "I", "L")
    assert image.dtype == torch.float32


def test_change_arrives_at_its_own_voxel(tmp_path, volume):
    path = nifti(tmp_path / "a.nii.gz", volume.astype(np.int16), SAGITTAL)

    def add(image):
        changed = image.clone()
        changed[0, 0, -1, 0, 0] += 100.4  # stored (0, 0, 2)
        return changed

    through_loader([{"image": str(path)}], tmp_path, add, postfix="x")
    back = nib.load(tmp_path / "out" / "a_x.nii.gz").get_fdata()
    expected = volume.copy()
    expected[0, 0, 2] += 100
    np.testing.assert_array_equal(back, expected)


def test_two_inputs_never_share_an_output(tmp_path, volume):
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        nifti(tmp_path / folder / "a.nii", volume.astype(np.int16), SAGITTAL)
    items = [{"image": str(tmp_path / folder / "a.nii")} for folder in ("p", "q")]
    with pytest.raises(ScanError, match="would both be written there"):
        through_loader(items, tmp_path, overwrite=True)


def test_second_run_needs_overwrite_and_cropped_volumes_are_refused(tmp_path, volume):
    items = [{"image": str(nifti(tmp_path / "a.nii", volume.astype(np.int16), SAGITTAL))}]
    through_loader(items, tmp_path)
    with pytest.raises(ScanError, match="already exists"):
        through_loader(items, tmp_path)
    through_loader(items, tmp_path, overwrite=True)
    with pytest.raises(ScanError, match="expected slices of shape"):
        through_loader(items, tmp_path, lambda image: image[:, :, 1:], overwrite=True)


def test_unknown_meta_is_refused(tmp_path):
    with pytest.raises(ScanError, match="expected metadata of LoadScand"):
        SaveScand("pred", tmp_path)({"pred": torch.zeros(1, 2, 2, 2)})


def test_reading_does_not_import_monai():
    code = "import sys, ct_cncl.transforms.series; sys.exit('monai' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
