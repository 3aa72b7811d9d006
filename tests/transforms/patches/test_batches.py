"""Patches are made in batches, from volumes on disk, in RAM or on a GPU; none of that changes a patch."""

import hashlib
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.dataset.volume_store import VolumeStore, fitting_cache
from ct_cncl.transforms.patches.patch_pairs import PatchPairs
from ct_cncl.transforms.patches.weighted import WeightedPatchPairs

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])
DOSES = {"dose_range": [0.1, 0.5], "nested_dose_range": [0.2, 0.9]}
OPTIONS = {
    "plain": {},
    "context": {"context_slices": 3},
    "nested": DOSES | {"context_slices": 3},
    "kernel": DOSES | {"sharpness_range": [-0.5, 0.8]},
    "zoom": DOSES | {"sharpness_range": [-0.5, 0.8], "zoom_range": [0.8, 1.3]},
}


def write(path, volume, step=None):
    image = nib.Nifti1Image(volume.astype(np.int16), np.eye(4))
    if step is not None:
        image.header.set_slope_inter(step, 0.0)
    nib.save(image, path)
    return str(path)


@pytest.fixture
def data(tmp_path):
    """Two entries of different shape; every value is written down by a formula, none by a random generator."""
    entries = []
    for k, shape in enumerate([(40, 36, 4), (48, 60, 3)]):
        values = np.arange(np.prod(shape)).reshape(shape)
        entries.append(
            {
                "source": str(k),
                "label": write(tmp_path / f"label{k}.nii", values * 7 % 1500 - 600),
                "image": write(tmp_path / f"image{k}.nii", values * 11 % 1700 - 700),
                "noise": [write(tmp_path / f"noise{k}{n}.nii", values * (13 + n) % 801 - 400, 0.25) for n in range(3)],
                "noise_model": {"noise_free": bool(k), "floor_hu": -1024.0 - k},
            }
        )
    return entries


def pairs(data, kind=PatchPairs, **options):
    return kind(data, **{"patch_size": 24, "patches_per_epoch": 40, "seed": 5, **options})


@pytest.mark.parametrize("name", OPTIONS)
def test_a_batch_holds_its_items_whatever_is_beside_them(data, name):
    dataset = pairs(data, **OPTIONS[name])
    batch, backwards = dataset.__getitems__(range(40)), dataset.__getitems__([*range(39, 7, -2)])
    for number in range(40):
        for key in ("image", "label"):
            assert torch.equal(batch[number][key], dataset[number][key])
    for place, number in enumerate(range(39, 7, -2)):
        assert torch.equal(backwards[place]["image"], batch[number]["image"])


@pytest.mark.parametrize(
    ("name", "digest"), [("plain", "6922655fbb34a618"), ("context", "606062f16979c356"), ("nested", "8d5fb7560085ec5e")]
)
def test_numbers_mean_what_they_meant_in_earlier_versions(data, name, digest):
    """Written by the code that made one patch after the other: runs begun with it go on with the same patches."""
    sha = hashlib.sha256()
    for item in pairs(data, **OPTIONS[name]).__getitems__(range(64)):
        for key in ("image", "label"):
            sha.update((to_hu(item[key]) * 16).round().to(torch.int32).numpy().tobytes())
    assert sha.hexdigest()[:16] == digest


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("cache", ["ram", "device", "auto"])
@pytest.mark.parametrize("name", OPTIONS)
def test_caches_and_devices_change_nothing(data, name, cache, device):
    plain = pairs(data, **OPTIONS[name])
    cached = pairs(data, cache=cache, device=torch.device(device), **OPTIONS[name])
    tolerance = 0.0 if device == "cpu" else 0.05 / 4096
    for one, other in zip(plain.__getitems__(range(16)), cached.__getitems__(range(16))):
        for key in ("image", "label"):
            assert other[key].device.type == device
            torch.testing.assert_close(other[key].cpu(), one[key], rtol=0, atol=tolerance)


def test_the_loader_makes_whole_batches(data):
    dataset = pairs(data)
    asked = []
    dataset.draw = lambda number, draw=dataset.draw: asked.append(number) or draw(number)
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    assert asked == list(range(8))
    assert torch.equal(batch["label"], torch.stack([pairs(data)[number]["label"] for number in range(8)]))


def test_weights_follow_the_pixel_size(data):
    """Regression: a zoomed pair came with a weight of another shape."""
    dataset = pairs(data, WeightedPatchPairs, air_weight=0.1, zoom_range=[0.8, 1.3])
    for item in dataset.__getitems__(range(20)):
        assert item["weight"].shape == item["label"].shape
        assert set((item["weight"] * 10).unique().tolist()) <= {1.0, 10.0}


# Volumes -------------------------------------------------------------------------------------------------------------


def test_held_volumes_are_the_files(data):
    paths = [data[0]["label"], data[1]["noise"][2], data[0]["label"]]
    on_disk, held = VolumeStore(paths), VolumeStore(paths, cache="ram")
    assert held.bytes == 2 * (40 * 36 * 4 + 48 * 60 * 3)
    for path in paths:
        stored = nib.load(path).dataobj.get_unscaled()
        for found in (on_disk[path], held[path]):
            np.testing.assert_array_equal(found.numpy(), stored)
            assert found.dtype == torch.int16
        np.testing.assert_array_equal(held.on_host(path), stored)
    assert held[paths[0]] is held[paths[0]]


def test_no_file_stays_open(data):
    """Regression: numpy's memory maps keep theirs, and a thousand volumes were more than a process may have open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    store = VolumeStore([path for entry in data for path in (entry["label"], entry["image"], *entry["noise"])])
    assert len(store._mapped) == 10
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_memory_mapped_volumes_do_not_travel_to_workers(data):
    store = VolumeStore([data[1]["label"]])
    size = len(pickle.dumps(store))
    assert size < 1000
    assert torch.equal(pickle.loads(pickle.dumps(store))[data[1]["label"]], store[data[1]["label"]])


def test_ram_is_read_once(data, tmp_path):
    store = VolumeStore([data[0]["label"]], cache="ram")
    before = store[data[0]["label"]].clone()
    nib.save(nib.Nifti1Image(np.zeros((40, 36, 4), np.int16), np.eye(4)), data[0]["label"])
    assert torch.equal(store[data[0]["label"]], before)


def test_what_fits_goes_onto_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert [fitting_cache(size, torch.device("cuda")) for size in (500, 501)] == ["device", "none"]
    assert fitting_cache(1, torch.device("cpu")) == "none"


def test_an_unknown_cache_is_refused(data):
    with pytest.raises(ValueError, match="auto, ram, device, none, but got 'disk'"):
        pairs(data, cache="disk")
