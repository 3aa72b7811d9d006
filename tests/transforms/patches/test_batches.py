"""Patches are made in batches, from volumes on disk, in RAM or on a GPU; none of that changes a patch."""

import hashlib
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, RandGaussianNoised, Randomizable, RandSpatialCropSamplesd
from tiny_patches import one_of, pairs, preprocessing
from torch.utils.data import DataLoader

from ct_cncl.transforms import HUToNetworkd, PatchPairs, RandPatchd
from ct_cncl.transforms.common.hu import to_hu
from ct_cncl.transforms.dataset.volume_store import VolumeStore, fitting_cache
from ct_cncl.transforms.patches.batch import sample_words
from ct_cncl.transforms.patches.orientation import oriented

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])
DOSES = {"dose_range": [0.1, 0.5], "nested_dose_range": [0.2, 0.9]}
OPTIONS = {
    "plain": {},
    "context": {"context_slices": 3},
    "nested": DOSES | {"context_slices": 3},
    "kernel": DOSES | {"sharpness_range": [-0.5, 0.8]},
    "zoom": DOSES | {"sharpness_range": [-0.5, 0.8], "zoom_range": [0.8, 1.3]},
    "lesions": {"lesion_prob": 0.7},
    "weights": {"air_weight": 0.1, "zoom_range": [0.8, 1.3]},
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


def tiny(data, name="plain", **options):
    wanted = dict(OPTIONS[name])
    if context := wanted.pop("context_slices", None):
        options |= {"context_slices": context}
    return pairs(data, 24, patches=wanted, **options)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_batch_holds_its_items_whatever_is_beside_them(data, name):
    dataset = tiny(data, name)
    batch, backwards = dataset.__getitems__(range(40)), dataset.__getitems__([*range(39, 7, -2)])
    for number in range(40):
        for key in ("image", "label"):
            assert torch.equal(batch[number][key], dataset[number][key])
    for place, number in enumerate(range(39, 7, -2)):
        assert torch.equal(backwards[place]["image"], batch[number]["image"])


@pytest.mark.parametrize("name", OPTIONS)
def test_the_batched_route_calls_the_objects_of_the_list(data, name):
    """Each transform called by itself on one item, seeded as the list seeds it, gives the same to the bit: nothing is hidden."""
    dataset = tiny(data, name)
    batch = dataset.__getitems__(range(20))
    for number in range(20):
        item = dataset.source(number)
        base = sample_words(dataset.seed, number)[0]
        for one, stream in zip(dataset.transform.transforms, dataset._made.streams, strict=True):
            if isinstance(one, Randomizable):
                one.set_random_state(seed=base ^ stream)
            item = one(item)
        for key in ("image", "label"):
            assert torch.equal(item[key], batch[number][key])
            assert item[key].shape == batch[number][key].shape


def test_a_loader_collates_whole_batches(data):
    dataset = tiny(data, "nested")
    asked = []
    dataset.source = lambda number, source=dataset.source: asked.append(number) or source(number)
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    assert asked == list(range(8))
    again = tiny(data, "nested")
    assert torch.equal(batch["label"], torch.stack([again[number]["label"] for number in range(8)]))


@pytest.mark.parametrize(
    ("name", "digest"), [("plain", "1b27e2b27342bd79"), ("context", "ce240524b048e33f"), ("nested", "73f8ecd826d2bbec")]
)
def test_numbers_mean_what_they_meant_in_earlier_versions(data, name, digest):
    """Runs that were begun go on with the same patches: whoever changes a draw says so in the changelog."""
    sha = hashlib.sha256()
    for item in tiny(data, name).__getitems__(range(64)):
        for key in ("image", "label"):
            sha.update((to_hu(item[key]) * 16).round().to(torch.int32).numpy().tobytes())
    assert sha.hexdigest()[:16] == digest


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("cache", ["ram", "device", "auto"])
@pytest.mark.parametrize("name", OPTIONS)
def test_caches_and_devices_change_nothing(data, name, cache, device):
    plain = tiny(data, name)
    cached = tiny(data, name, cache=cache, device=torch.device(device))
    tolerance = 0.0 if device == "cpu" else 0.05 / 4096
    for one, other in zip(plain.__getitems__(range(16)), cached.__getitems__(range(16))):
        for key in ("image", "label"):
            assert other[key].device.type == device
            torch.testing.assert_close(other[key].cpu(), one[key], rtol=0, atol=tolerance)


def test_weights_follow_the_pixel_size(data):
    """Regression: a zoomed pair came with a weight of another shape."""
    dataset = pairs(data, 24, patches={"air_weight": 0.1, "zoom_range": [0.8, 1.3]})
    for item in dataset.__getitems__(range(20)):
        assert item["weight"].shape == item["label"].shape
        assert set((item["weight"] * 10).unique().tolist()) <= {1.0, 10.0}


# MONAI's own transforms ----------------------------------------------------------------------------------------------


def noise_at_the_end():
    return RandGaussianNoised(["image"], prob=0.7, std=0.01)


def test_a_transform_of_monai_that_draws_is_a_function_of_seed_and_number(data):
    plain = tiny(data)
    one, two = (tiny(data, extra=[noise_at_the_end()]) for _ in range(2))
    batch = one.__getitems__(range(24))
    changed = 0
    for number in reversed(range(24)):
        assert torch.equal(two[number]["image"], batch[number]["image"])
        assert torch.equal(batch[number]["label"], plain[number]["label"])
        changed += not torch.equal(batch[number]["image"], plain[number]["image"])
    assert 8 < changed < 24
    noise = [batch[number]["image"] - plain[number]["image"] for number in range(24)]
    assert 0.004 < torch.stack([one for one in noise if one.any()]).std() < 0.02
    other = tiny(data, seed=6, extra=[noise_at_the_end()])
    assert not torch.equal(other[0]["image"], batch[0]["image"])


def test_workers_change_nothing_about_it(data):
    alone, helped = (
        [
            batch["image"].as_tensor() if hasattr(batch["image"], "as_tensor") else batch["image"]
            for batch in DataLoader(
                tiny(data, per_epoch=6, extra=[noise_at_the_end()]), batch_size=2, num_workers=workers
            )
        ]
        for workers in (0, 2)
    )
    assert torch.equal(torch.cat(alone), torch.cat(helped))


def test_a_transform_between_ours_sees_one_item_and_ours_go_on_with_the_batch(data):
    """A deterministic one, before network units: HU are halved, image by image."""
    compose = preprocessing(24)
    halved = Lambdad(["image", "label"], func=lambda image: image / 2 if image.ndim == 3 else pytest.fail("a batch"))
    compose.transforms = [*compose.transforms[:-1], halved, compose.transforms[-1]]
    dataset = PatchPairs(data, compose, patches_per_epoch=8, seed=5)
    for one, other in zip(dataset.__getitems__(range(8)), tiny(data).__getitems__(range(8))):
        torch.testing.assert_close(to_hu(one["image"]), to_hu(other["image"]) / 2, atol=1e-3, rtol=0)


def test_without_the_flips_everything_else_is_drawn_as_before(data):
    """Removing one transform must not change what the others draw: else no comparison would be one."""
    dataset, plain = tiny(data, "kernel", without=["RandOrientationd"]), tiny(data, "kernel")
    turn = one_of(plain, "RandOrientationd")
    for number in range(20):
        item, whole = dataset[number], plain[number]
        for key in ("image", "label"):
            torch.testing.assert_close(oriented(item[key], turn.orientation), whole[key], atol=1e-6, rtol=0)


def test_two_of_one_kind_draw_apart(data):
    twice = tiny(data, extra=[noise_at_the_end(), noise_at_the_end()])
    assert len(set(twice._made.streams)) == len(twice._made.streams)


def test_a_transform_that_makes_several_of_one_is_refused(data):
    crops = RandSpatialCropSamplesd(["image", "label"], roi_size=(8, 8), num_samples=2)
    with pytest.raises(ValueError, match="one item for each item, but RandSpatialCropSamplesd returned list"):
        tiny(data, extra=[crops])[0]


def test_in_a_plain_monai_pipeline_ours_are_like_any_other(data):
    """Without our data set: arrays in, a Compose of MONAI's, its seed."""
    image = np.random.default_rng(0).normal(40, 20, (1, 64, 64)).astype(np.float32)
    steps = Compose(
        [RandPatchd(["image", "label"], 32), RandGaussianNoised(["image"], prob=1.0, std=5), HUToNetworkd(["image"])]
    )
    one, two = (steps.set_random_state(seed=3)({"image": image, "label": image}) for _ in range(2))
    assert np.asarray(one["image"]).shape == (1, 32, 32)
    assert np.array_equal(np.asarray(one["image"]), np.asarray(two["image"]))
    assert isinstance(one["label"], np.ndarray)


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
        tiny(data, cache="disk")
