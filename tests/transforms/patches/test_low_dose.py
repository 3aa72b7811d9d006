import dataclasses

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ct_cncl.transforms.patches.low_dose import SimulateLowDose, SimulateLowDosed
from ct_cncl.transforms.physics import DoseSettings, insert_noise

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


def simulate(dose=0.25, **options):
    return SimulateLowDose(dose, **({"incident_photons": PHOTONS, "settings": SETTINGS} | options))


# Full physics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_full_dose_is_the_scan_bit_by_bit(dtype):
    image = scan(incident_photons=1e4, dtype=dtype)
    result = simulate(1.0, incident_photons=None)(image)
    assert torch.equal(result.as_tensor(), image.as_tensor())
    assert result.dtype == dtype
    assert result is not image


def test_noise_is_that_of_the_physics_with_the_affines_pixel_size():
    """Twice the pixel is twice the water: e^p, and so the noise, depend on it."""
    centre, levels = RADIUS < 12, []
    coarse = scan()
    fine = MetaTensor(coarse.as_tensor(), affine=torch.diag(torch.tensor([PIXEL / 2, PIXEL / 2, 5.0, 1.0])))
    for image, pixel in ((coarse, PIXEL), (fine, PIXEL / 2)):
        added = simulate()(image).as_tensor()[0].numpy()[centre]
        settings = dataclasses.replace(SETTINGS, incident_photons=PHOTONS, dose_fraction=0.25)
        expected = insert_noise(image.as_tensor()[0].numpy(), (pixel, pixel), settings, seed=5)[centre]
        assert added.std() == pytest.approx(expected.std(), rel=0.1)
        levels.append(added.std())
    assert levels[0] > 1.3 * levels[1]


def test_non_square_pixels():
    affine = torch.diag(torch.tensor([PIXEL, 2 * PIXEL, 5.0, 1.0], dtype=torch.float64))
    image = MetaTensor(scan().as_tensor()[:, :, ::2], affine=affine)
    ratio = simulate()(image).as_tensor()[0].numpy()[RADIUS[:, ::2] < 12].std()
    square = simulate()(scan()).as_tensor()[0].numpy()[RADIUS < 12].std()
    assert ratio == pytest.approx(square, rel=0.35)  # coarser along one axis


def test_padding_meta_and_affine_stay_and_air_is_cut_off_at_the_floor():
    image = scan(padding=-2000.0)
    low = simulate(0.05)(image)
    assert (low.as_tensor()[0].numpy()[RADIUS > 48] == -2000).all()
    assert low.as_tensor()[0].numpy()[RADIUS < 48].min() == -1024
    assert torch.equal(low.affine, AFFINE)
    assert low.meta["name"] == "x"
    assert low.meta["dose_fraction"] == 0.05
    assert low.meta["incident_photons"] == PHOTONS
    assert "dose_fraction" not in image.meta
    assert low.dtype == torch.float32


def test_noise_depends_on_seed_and_volume_not_on_the_order():
    transform, first, second = simulate(seed=1), scan(), scan()
    second[0, 48, 48, 0] += 1
    low = transform(first)
    other = transform(second)
    assert torch.equal(transform(first).as_tensor(), low.as_tensor())
    for different in (other, simulate(seed=2)(first)):
        a, b = ((x.as_tensor() - first.as_tensor())[0].numpy()[RADIUS < 30].ravel() for x in (low, different))
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_without_quanta_the_scan_is_calibrated():
    image = scan(incident_photons=1e4)
    transform = simulate(incident_photons=None)
    low = transform(image)
    assert transform.calibration.method == "image"
    assert transform.calibration.incident_photons == pytest.approx(1e4, rel=0.4)
    centre = RADIUS < 25
    ratio = low.as_tensor()[0].numpy()[centre].std() / image.as_tensor()[0].numpy()[centre].std()
    assert ratio == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("device", DEVICES)
def test_dictionary_version_does_the_same(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    image = scan().to(device)
    items = SimulateLowDosed("image", 0.25, incident_photons=PHOTONS, settings=SETTINGS)(
        {"image": image, "label": image}
    )
    assert items["image"].device.type == device
    assert torch.equal(items["image"].cpu().as_tensor(), simulate()(scan()).as_tensor())
    assert items["label"] is image
    assert list(SimulateLowDosed("image", 0.25, allow_missing_keys=True)({"x": 1})) == ["x"]


@pytest.mark.parametrize("dose", [0.0, -0.5, 1.5, 25, float("nan")])
def test_doses_out_of_range_are_refused(dose):
    with pytest.raises(ValueError, match="dose fraction above 0 and up to 1"):
        SimulateLowDose(dose)


def test_other_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="photons above 0"):
        SimulateLowDose(0.25, incident_photons=0.0)
    with pytest.raises(ValueError, match="seed of 0 or above"):
        SimulateLowDose(0.25, seed=-1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 8, 8, 2), "MetaTensor.*got Tensor"),
        (MetaTensor(torch.zeros(8, 8, 2)), r"volume \(1, x, y, z\)"),
        (MetaTensor(torch.zeros(2, 8, 8, 2)), r"volume \(1, x, y, z\)"),
        (MetaTensor(torch.rand(1, 8, 8, 2), affine=AFFINE), "never below 0"),
        (MetaTensor(torch.full((1, 8, 8, 2), torch.nan), affine=AFFINE), "finite HU"),
    ],
)
def test_what_is_no_scan_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        simulate()(image)
