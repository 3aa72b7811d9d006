import dataclasses
import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from ct_cncl.transforms.patches.random_dose import DoseDraw, RandLowDose, RandLowDosed, pairs_at_doses
from ct_cncl.transforms.physics import DoseSettings, insert_noise
from ct_cncl.transforms.physics.noise_realizations import noise_factor, noise_realization

SIZE, PIXEL = 96, 3.0
AFFINE = torch.diag(torch.tensor([-PIXEL, -PIXEL, 5.0, 1.0], dtype=torch.float64))
RADIUS = np.hypot(*np.meshgrid(np.arange(SIZE) - 47.5, np.arange(SIZE) - 47.5, indexing="ij"))
SETTINGS = DoseSettings(views=90)
PHOTONS = 3e4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def scan(padding=None, incident_photons=None, seed=0, dtype=torch.float32):
    """A water cylinder in air, (1, 96, 96, 2), with the noise of ``incident_photons``."""
    hu = np.where(RADIUS < 36, 0.0, -1000.0)[..., None].repeat(2, axis=2)
    if incident_photons is not None:
        full = dataclasses.replace(SETTINGS, dose_fraction=1.0, incident_photons=incident_photons)
        hu = insert_noise(hu, (PIXEL, PIXEL), full, seed, noise_free=True)
    if padding is not None:
        hu[RADIUS > 48] = padding
    return MetaTensor(torch.from_numpy(hu).to(dtype)[None], affine=AFFINE, meta={"name": "x"})


# Random doses --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit():
    """Two noise realizations, (2, 96, 96, 2)."""
    hu = scan().as_tensor()[0].numpy()
    settings = dataclasses.replace(SETTINGS, incident_photons=PHOTONS)
    return torch.from_numpy(np.stack([noise_realization(hu, (PIXEL, PIXEL), settings, seed) for seed in (3, 4)]))


def test_result_is_the_image_and_its_scaled_noise(unit):
    transform = RandLowDose((0.1, 0.5), floor_hu=None).set_random_state(seed=1)
    image = scan()
    for _ in range(5):
        low = transform(image, unit)
        expected = image.as_tensor() + noise_factor(transform.dose_fraction) * unit[transform.realization][None]
        assert torch.equal(low.as_tensor(), expected)
        assert torch.equal(low.affine, AFFINE)


def test_one_dose_gives_what_the_full_physics_gives(unit):
    transform = RandLowDose((0.25, 0.25), floor_hu=None).set_random_state(seed=0)
    low = transform(scan(), unit).as_tensor()[0].numpy()
    settings = dataclasses.replace(SETTINGS, incident_photons=PHOTONS, dose_fraction=0.25)
    expected = insert_noise(scan().as_tensor()[0].numpy(), (PIXEL, PIXEL), settings, seed=3 + transform.realization)
    np.testing.assert_allclose(low, expected, atol=0.05)


def test_draws_are_log_uniform_and_use_every_realization():
    transform = RandLowDose((0.05, 0.8)).set_random_state(seed=0)
    draws = []
    for _ in range(2000):
        transform.randomize(3)
        draws.append((transform.dose_fraction, transform.realization))
    doses, realizations = np.array(draws).T
    assert doses.min() >= 0.05
    assert doses.max() <= 0.8
    np.testing.assert_allclose(np.quantile(doses, [0.25, 0.5, 0.75]), [0.1, 0.2, 0.4], rtol=0.1)
    assert np.bincount(realizations.astype(int)).min() > 550


def test_the_same_state_gives_the_same_draws_and_drawing_is_apart_from_applying(unit):
    one, two = (RandLowDose((0.1, 0.5)).set_random_state(seed=7) for _ in range(2))
    results = [one(scan(), unit) for _ in range(4)]
    for result in results:
        two.randomize(2)
        assert torch.equal(two(scan(), unit, randomize=False).as_tensor(), result.as_tensor())
    assert not torch.equal(results[0].as_tensor(), results[1].as_tensor())
    assert not torch.equal(one.set_random_state(seed=8)(scan(), unit).as_tensor(), results[0].as_tensor())


def test_full_dose_and_a_lost_draw_leave_the_image(unit):
    image = scan()
    assert torch.equal(RandLowDose((1.0, 1.0))(image, unit).as_tensor(), image.as_tensor())
    assert RandLowDose((0.1, 0.5), prob=0.0)(image, unit) is image


def test_arrays_patches_and_the_floor(unit):
    patch, noise = scan().as_tensor()[:, 40:60, 2:30, 0].numpy(), unit[:, 40:60, 2:30, 0].numpy()
    transform = RandLowDose((0.001, 0.001))
    low = transform(patch, noise)
    assert isinstance(low, np.ndarray)
    assert low.dtype == np.float32
    assert low.min() == -1024
    free = RandLowDose((0.001, 0.001), floor_hu=None)(patch, noise)
    assert free.min() < -1500


def test_shapes_that_do_not_fit_are_refused(unit):
    for bad in (unit[:, :50], unit[0], unit[:0]):
        with pytest.raises(ValueError, match="noise realization"):
            RandLowDose((0.1, 0.5))(scan(), bad)


@pytest.mark.parametrize("bad", [(0.0, 0.5), (0.5, 0.1), (0.1, 2.0)])
def test_ranges_out_of_order_are_refused(bad):
    with pytest.raises(ValueError, match="Expected two dose fractions"):
        RandLowDose(bad)


def test_dictionary_version_draws_once_for_all_keys_and_follows_the_state(unit):
    def run(seed):
        transform = Compose([RandLowDosed(("a", "b"), (0.1, 0.5), noise_key="n")]).set_random_state(seed=seed)
        return transform({"a": scan(), "b": scan() + 10, "n": unit})

    items = run(3)
    difference = items["b"].as_tensor() - items["a"].as_tensor()
    inside = torch.from_numpy(RADIUS < 30)
    assert torch.allclose(difference[0][inside], torch.tensor(10.0), atol=1e-3)
    assert torch.equal(run(3)["a"].as_tensor(), items["a"].as_tensor())
    assert not torch.equal(run(4)["a"].as_tensor(), items["a"].as_tensor())
    assert torch.equal(items["n"], unit)


def test_dictionary_version_passes_its_options_on(unit):
    items = {"image": scan(), "noise": unit}
    assert RandLowDosed("image", (0.1, 0.5), prob=0.0)(items)["image"] is items["image"]
    assert RandLowDosed("image", (0.001, 0.001))(items)["image"].min() == -1024
    assert RandLowDosed("image", (0.001, 0.001), floor_hu=None)(items)["image"].min() < -1100


def test_dictionary_version_needs_its_noise(unit):
    with pytest.raises(KeyError, match="--realizations"):
        RandLowDosed("image", (0.1, 0.5))({"image": scan()})
    items = {"noise": unit}
    assert RandLowDosed("image", (0.1, 0.5), allow_missing_keys=True)(items)["noise"] is unit


def test_transforms_survive_being_sent_to_a_worker(unit):
    transform = pickle.loads(pickle.dumps(RandLowDose((0.1, 0.5)).set_random_state(seed=2)))
    assert torch.equal(
        transform(scan(), unit).as_tensor(), RandLowDose((0.1, 0.5)).set_random_state(seed=2)(scan(), unit).as_tensor()
    )


# What a pair at a dose is --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaussian():
    """A scan with noise of deviation 1 (full dose) on 0, and two noise realizations."""
    rng = np.random.default_rng(0)
    return rng.normal(size=400_000), [rng.normal(size=400_000) for _ in range(2)]


def pair_at_dose(label, unit, draw, *, noise_free, floor_hu):
    """One pair, as arrays."""
    tensors = [torch.from_numpy(one)[None] for one in (label, *unit)]
    pair = pairs_at_doses(tensors[0], tensors[1:], [draw], noise_free=[noise_free], floor_hu=[floor_hu])
    return tuple(one[0].numpy() for one in pair)


@pytest.mark.parametrize("a", [0.5, 0.25, 0.1])
def test_the_image_has_the_noise_of_its_dose(gaussian, a):
    scan, unit = gaussian
    image, target = pair_at_dose(scan, unit[:1], DoseDraw(a, 1.0, (0,)), noise_free=False, floor_hu=-1024.0)
    assert image.std() == pytest.approx(np.sqrt(1 / a), rel=0.01)
    assert target is not None
    np.testing.assert_array_equal(target, scan)


@pytest.mark.parametrize(("a", "b"), [(0.25, 0.5), (0.5, 0.1), (0.1, 1.0)])
@pytest.mark.parametrize("noise_free", [False, True])
def test_nested_doses_have_the_noise_of_their_doses_and_the_ratio_of_a_real_pair(gaussian, a, b, noise_free):
    scan, unit = gaussian
    scan = np.zeros_like(scan) if noise_free else scan
    image, target = pair_at_dose(scan, unit, DoseDraw(a, b, (0, 1)), noise_free=noise_free, floor_hu=-1024.0)
    assert target.std() == pytest.approx(np.sqrt(1 / b), rel=0.01)
    assert image.std() == pytest.approx(np.sqrt(1 / (a * b)), rel=0.01)
    assert (image - target).std() / target.std() == pytest.approx(np.sqrt((1 - a) / a), rel=0.01)
    assert abs(np.corrcoef(image - target, target)[0, 1]) < 0.01


def test_a_noise_free_scan_gets_all_the_noise_of_its_dose(gaussian):
    _, unit = gaussian
    image, _ = pair_at_dose(np.zeros(400_000), unit[:1], DoseDraw(0.25, 1.0, (0,)), noise_free=True, floor_hu=-1024.0)
    assert image.std() == pytest.approx(2.0, rel=0.01)


def test_both_are_cut_off_only_in_the_end():
    """Cut off before the second noise, image and target would differ by less than they should."""
    label, unit = np.full(4, -1000.0), [np.array([50.0, 90.0, 10.0, 0.0]), np.array([-60.0, -60.0, -60.0, 0.0])]
    image, target = pair_at_dose(label, unit, DoseDraw(0.5, 0.5, (0, 1)), noise_free=False, floor_hu=-1024.0)
    assert target.tolist() == [-1024.0, -1024.0, -1024.0, -1000.0]
    np.testing.assert_allclose(image, [-1060 + np.sqrt(2) * 50, -1060 + np.sqrt(2) * 90, -1024, -1000])


def test_nested_draws_are_log_uniform_and_their_realizations_differ():
    transform = RandLowDose((0.05, 0.8), nested_dose_range=(0.2, 0.8)).set_random_state(seed=0)
    draws = []
    for _ in range(3000):
        transform.randomize(3)
        draws.append(transform.drawn)
    np.testing.assert_allclose(np.quantile([d.fraction for d in draws], [0.25, 0.5, 0.75]), [0.1, 0.2, 0.4], rtol=0.1)
    np.testing.assert_allclose(np.median([d.target_fraction for d in draws]), 0.4, rtol=0.1)
    chosen = [d.realizations for d in draws]
    assert set(chosen) == {(i, j) for i in range(3) for j in range(3) if i != j}
    assert min(chosen.count(pair) for pair in set(chosen)) > 400


def test_nesting_takes_the_label_to_its_dose_and_makes_the_image_from_it(unit):
    noise = unit[..., 0]
    transform = RandLowDosed("image", (0.1, 0.5), nested_dose_range=(0.3, 0.9), label_key="label", floor_hu=None)
    label = scan().as_tensor()[..., 0]
    items = transform.set_random_state(seed=4)({"label": label, "noise": noise})
    draw = transform.transform.drawn
    first, second = (noise[number][None] for number in draw.realizations)
    target = label + noise_factor(draw.target_fraction) * second
    torch.testing.assert_close(items["label"], target)
    torch.testing.assert_close(items["image"], target + noise_factor(draw.fraction, of=draw.target_fraction) * first)


def test_a_batch_is_its_items_and_lost_draws_leave_them(unit):
    """Half of the draws are lost: those images, and their labels, stay as they were."""
    labels = torch.stack([scan().as_tensor()[..., 0] + shift for shift in range(8)])
    noise = unit[..., 0].expand(8, -1, -1, -1)
    transform = RandLowDosed("image", (0.1, 0.5), nested_dose_range=(0.3, 0.9), label_key="label", prob=0.5)
    together = transform.set_random_state(seed=1)({"image": labels + 1000, "label": labels, "noise": noise})
    transform.set_random_state(seed=1)
    kept = 0
    for number in range(8):
        alone = transform({"image": labels[number] + 1000, "label": labels[number], "noise": noise[number]})
        assert torch.equal(alone["image"], together["image"][number])
        assert torch.equal(alone["label"], together["label"][number])
        kept += torch.equal(alone["image"], labels[number] + 1000) and torch.equal(alone["label"], labels[number])
    assert 0 < kept < 8


def test_nesting_needs_a_dose_and_a_label():
    for options in ({"dose_range": None, "label_key": "label"}, {"dose_range": (0.1, 0.5)}):
        with pytest.raises(ValueError, match="Expected a dose_range and a label_key with nested_dose_range"):
            RandLowDosed("image", nested_dose_range=(0.1, 0.5), **options)


def test_too_few_realizations_for_nesting(unit):
    transform = RandLowDosed("image", (0.1, 0.5), nested_dose_range=(0.3, 0.9), label_key="label")
    with pytest.raises(ValueError, match=r"2 or more noise realizations, but got 1.*--realizations 2"):
        transform({"label": scan().as_tensor()[..., 0], "noise": unit[:1, ..., 0]})
