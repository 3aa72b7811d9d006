"""The arithmetic of benchmarks/gain_by_noise.py, noise_left.py, hu_by_mask.py, contrast_kept.py, baselines.py and ablation_maps.py."""

import importlib

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import ROOT
from tiny_weights import Add

from ct_cncl.pipeline.weights.load import Weights


@pytest.fixture
def benchmark_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def gain(benchmark_named):
    return benchmark_named("gain_by_noise")


@pytest.fixture
def baselines(benchmark_named):
    return benchmark_named("baselines")


def disc(noise_hu, seed):
    """A water disc in lung (160, 160), with white noise everywhere; nothing is near the scanner's floor."""
    inside = np.hypot(*np.mgrid[-80:80, -80:80]) < 65
    return np.where(inside, 40.0, -700.0) + np.random.default_rng(seed).normal(0, noise_hu, inside.shape)


def sample(gain, *, own_hu, noise_free):
    hu = disc(0.0 if noise_free else own_hu, seed=1)
    unit = np.random.default_rng(2).normal(0, own_hu, (2, *hu.shape))
    data, corners, tissues = "phantoms" if noise_free else "scans", gain.uniform_patches(hu), gain.tissue_masks(hu)
    return gain.Sample(data, hu, unit, own_hu, noise_free, corners, tissues, (0.8, 0.8), "disc.nii")


@pytest.mark.parametrize("noise_free", [True, False])
def test_input_has_the_level_and_target_half_of_it(gain, noise_free):
    image, target = gain.pair_at_level(sample(gain, own_hu=6.0, noise_free=noise_free), 30.0)
    inside = np.hypot(*np.mgrid[-80:80, -80:80]) < 60
    assert image[inside].std() == pytest.approx(30.0, rel=0.03)
    assert target[inside].std() == pytest.approx(15.0, rel=0.03)
    assert np.corrcoef(image[inside], target[inside])[0, 1] == pytest.approx(0.5, abs=0.03)  # a quarter of the power


def test_a_scan_with_more_noise_than_the_target_has_no_pair(gain):
    assert gain.pair_at_level(sample(gain, own_hu=6.0, noise_free=False), 11.9) is None
    assert gain.pair_at_level(sample(gain, own_hu=6.0, noise_free=False), 12.1) is not None
    with pytest.raises(ValueError, match="PHOTONS"):
        gain.pair_at_level(sample(gain, own_hu=6.0, noise_free=True), 11.9)


def test_a_network_that_adds_5_hu(gain):
    weights = Weights(Add(5.0).eval(), torch.device("cpu"), "")
    (row,) = gain.run(iter([sample(gain, own_hu=6.0, noise_free=True)] * 2), [40.0], weights)
    added = np.sqrt(3 / 4) * 40  # noise of input minus target
    assert row["slices"] == 2
    assert row["noise left"] == pytest.approx(1.0, abs=1e-5)
    assert row["input noise HU"] == pytest.approx(40.0, rel=0.05)
    assert row["HU bias, soft tissue"] == pytest.approx(5.0, abs=1.5)
    assert row["gain dB"] == pytest.approx(-10 * np.log10(1 + 25 / added**2), abs=0.05)


def test_the_best_gain_of_an_ideal_result(gain):
    """A result whose error is a quarter of the input's power: 6.02 dB."""
    hu = disc(0.0, seed=1)
    noise = np.random.default_rng(3).normal(0, 20, hu.shape)
    one = sample(gain, own_hu=6.0, noise_free=True)._replace(hu=hu)
    found = gain.measure(
        one, (hu + noise).astype(np.float32), hu.astype(np.float32), (hu + noise / 2).astype(np.float32)
    )
    assert found.after_db - found.before_db == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert found.after_hu / found.before_hu == pytest.approx(0.5, abs=1e-4)


class Box(torch.nn.Module):
    """The mean of 3 x 3 pixels: lets a third of white noise through, and all anatomy that is wider."""

    def forward(self, image):
        return torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


def test_noise_that_is_left_is_told_from_anatomy(gain, benchmark_named):
    """Ramps of 20 HU over soft tissue, which a denoiser keeps: they are in the calm patches, and cancel out."""
    noise_left = benchmark_named("noise_left")
    one = sample(gain, own_hu=6.0, noise_free=False)
    ramps = 10 * np.sin(np.arange(160) / 8)[:, None] * np.ones(160)
    one = one._replace(hu=one.hu + ramps)
    settings = noise_left.Settings()
    scan, mean = noise_left.rows([one, one], Weights(Box().eval(), torch.device("cpu"), ""), settings)
    assert (scan["scan"], scan["slices"], scan["own noise HU"]) == ("disc.nii", 2, 6.0)
    assert scan["noise left"] == mean["noise left"] == pytest.approx(1 / 3, rel=0.05)
    assert scan["mean frequency before 1/mm"] > 1.4 * scan["mean frequency after 1/mm"]
    kept = noise_left.rows([one], Weights(Add(5.0).eval(), torch.device("cpu"), ""), settings)[0]
    assert kept["noise left"] == pytest.approx(1.0, abs=1e-4)
    assert kept["mean frequency after 1/mm"] == pytest.approx(kept["mean frequency before 1/mm"], rel=1e-4)


def test_bias_by_tissues_of_the_truth_and_of_the_input(gain, benchmark_named):
    """Added noise of 200 HU that is all one sign makes bone of soft tissue: only the input's tissues tell of it."""
    hu_by_mask = benchmark_named("hu_by_mask")
    one = sample(gain, own_hu=6.0, noise_free=True)._replace(hu=np.full((64, 64), 150.0, dtype=np.float32))
    unit = np.stack([np.full((64, 64), 200 / np.sqrt(3), dtype=np.float32)] * 2)
    found = hu_by_mask.rows([one._replace(unit=unit)], Weights(Add(3.0).eval(), torch.device("cpu"), ""))
    by_truth, by_input, of_input = found
    assert by_truth["soft tissue"] == pytest.approx(203, abs=1e-2)
    assert by_input["bone"] == pytest.approx(203, abs=1e-2)
    assert of_input["soft tissue"] == pytest.approx(200, abs=1e-2)
    assert all(np.isnan(value) for value in (by_truth["bone"], by_input["soft tissue"], of_input["bone"]))


def lcd_like(folder):
    """The phantom's files: a body of 0 HU in air, and realizations of white noise of 30 HU."""
    body = np.zeros((256, 256), bool)
    body[30:-30, 30:-30] = True
    truth = np.where(body, 0.0, -1000.0)
    (folder / "dose_055" / "signal_absent").mkdir(parents=True)
    (truth + 1000).astype("<u2").tofile(folder / "ground_truth.raw")
    for number in range(3):
        noisy = truth + np.random.default_rng(number).normal(0, 30, truth.shape)
        (noisy + 1000).round().astype("<i2").tofile(folder / "dose_055" / "signal_absent" / f"{number}.raw")


@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_contrast_kept_of_a_denoiser_that_scales_everything(benchmark_named, tmp_path, kept):
    """What scales noise and inserts alike keeps as much of the one as of the other, and makes no blobs."""
    contrast_kept = benchmark_named("contrast_kept")
    lcd_like(tmp_path)

    def scaled(volume):
        return np.where(volume > -500, kept * volume, volume)

    found = contrast_kept.phantom_kept(scaled, tmp_path, level_hu=20.0, pixel=0.7)
    assert found.noise == pytest.approx(kept, abs=1e-3)
    for contrasts in found.contrasts:
        assert len(contrasts) > 0
        assert contrasts == pytest.approx(np.full(len(contrasts), kept), abs=1e-3)
    before, after = found.blobs
    assert after == pytest.approx(before)
    assert len(found.shifts) > 0
    assert np.abs(found.shifts).max() < 30 * (1 - kept) / 10 + 1e-6  # a disc of 30 mm has the mean of 1,400 pixels
    row = contrast_kept.row("scaled", "phantom", 20.0, [found])
    assert row["14 HU, 3 mm"] == pytest.approx(100 * kept, abs=0.1)
    assert row["noise left"] == pytest.approx(kept, abs=1e-3)


def test_settings_are_the_ones_with_the_best_psnr(baselines, capsys):
    truth, low = disc(0.0, seed=1), disc(20.0, seed=1)
    good, plastic = (baselines.NonLocalMeans(h, 5, 6) for h in (0.8, 100.0))
    assert baselines.choose([(low, truth, 20.0)], [plastic, good]) == good
    before, worse, better = (float(line.split()[-2]) for line in capsys.readouterr().out.splitlines())
    assert before == pytest.approx(20 * np.log10(4096 / 20), abs=0.1)
    assert better > max(before + 6, worse + 6)


def test_files_keep_geometry_padding_and_name(baselines, tmp_path):
    hu = np.repeat(disc(20.0, seed=1)[..., None], 2, axis=2)
    corner = np.hypot(*np.mgrid[-80:80, -80:80]) > 80
    hu[corner] = -2000
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    (tmp_path / "low").mkdir()
    nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), affine), tmp_path / "low" / "scan.nii.gz")
    baselines.denoise(tmp_path / "low", tmp_path / "out", baselines.NonLocalMeans(0.8, 5, 6))
    result = nib.load(tmp_path / "out" / "scan_nlm.nii.gz")
    values = np.asarray(result.dataobj)
    inside = np.hypot(*np.mgrid[-80:80, -80:80]) < 55
    np.testing.assert_allclose(result.affine, affine, atol=1e-6)
    assert (values[corner] == -2000).all()
    assert values[inside].std() < 8
    assert values[inside].mean() == pytest.approx(40.0, abs=0.5)


def test_gains_by_strength_are_those_of_the_arithmetic(benchmark_named):
    """Half of the error taken away is 6.02 dB; a network that goes twice too far gains nothing."""
    target = benchmark_named("target_dose")
    truth = np.zeros((32, 32))
    low = truth + 10.0
    found = target.gains(truth, low, low - 5.0, [0.0, 1.0, 4.0])
    assert found == [pytest.approx(0, abs=1e-4), pytest.approx(20 * np.log10(2), abs=1e-4), pytest.approx(0, abs=1e-4)]


def test_maps_of_an_ablation_show_known_errors(benchmark_named, tmp_path, monkeypatch, capsys):
    """A body of 0 HU in air; the result is 50 HU off, C(y) not at all, y - N(y) -100 HU, over a range of 200 HU."""
    maps = benchmark_named("ablation_maps")
    label = np.full((64, 64), -1000.0, dtype=np.float32)
    label[16:48, 8:40] = 0
    errors = {"image": 25.0, "label": 0.0, "content": 0.0, "denoised": -100.0, "pred": 50.0}
    for name in ("a+b", "c"):
        folder = tmp_path / "runs" / name / "evaluation_validation"
        folder.mkdir(parents=True)
        np.savez(folder / "slices.npz", **{key: (label + error)[None] for key, error in errors.items()})
    monkeypatch.setattr("sys.argv", ["ablation_maps", str(tmp_path), "--out", str(tmp_path / "maps.png")])
    maps.main()
    picture = np.asarray(Image.open(tmp_path / "maps.png")).astype(int)
    rows = 20 + maps.TILE // 2 + maps.TILE * np.arange(3)
    columns = maps.LABEL + maps.TILE // 2 + maps.TILE * np.arange(3)
    assert picture[np.ix_(rows, columns)].tolist() == [[159, 255, 255], [191, 128, 0], [191, 128, 0]]
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| input | 25.0 | nan | 25.0 |",
        "| a+b | 50.0 | nan | 50.0 |",
        "| c | 50.0 | nan | 50.0 |",
    ]
    monkeypatch.setattr("sys.argv", ["ablation_maps", str(tmp_path), "--out", "x.png", "--variants", "d"])
    with pytest.raises(SystemExit, match="slices.npz, but it does not exist"):
        maps.main()
