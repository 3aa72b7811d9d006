import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scipy.ndimage import gaussian_filter

from ct_cncl.pipeline.metrics import edge_correlation, local_edge_correlation, quality_metrics, validation_metrics
from ct_cncl.pipeline.metrics.structure import edges


def anatomy(seed=0, side=96):
    """Smooth blobs of soft tissue with sharp borders, and noise of 10 HU."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=(side, side)), 6)
    return np.where(blobs > 0, 100.0, 0.0) + rng.normal(0, 10, (side, side))


def tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float32))[None, None]


def test_edges_equal_scipys_difference_of_gaussians():
    reference = anatomy()
    difference = gaussian_filter(reference, 1.5, mode="nearest") - gaussian_filter(reference, 3.0, mode="nearest")
    expected = np.sign(difference) * (np.clip(np.abs(difference), 8, 60) - 8)
    np.testing.assert_allclose(edges(tensor(reference))[0, 0].numpy(), expected, atol=0.05)


def test_a_constant_image_has_no_edges_not_even_at_its_border():
    assert edges(torch.full((1, 1, 40, 30), -1000.0)).abs().max() == 0


def test_correlation_equals_numpys():
    reference, rng = anatomy(), np.random.default_rng(1)
    noise = rng.normal(0, 20, reference.shape) + 0.5 * edges(tensor(reference))[0, 0].numpy()
    expected = np.corrcoef(noise.ravel(), edges(tensor(reference)).numpy().ravel())[0, 1]
    assert edge_correlation(tensor(noise), tensor(reference)).item() == pytest.approx(expected, abs=1e-5)


def test_true_noise_knows_nothing_of_edges():
    values = [
        edge_correlation(tensor(np.random.default_rng(100 + k).normal(0, 30, (96, 96))), tensor(anatomy(k))).item()
        for k in range(5)
    ]
    assert max(map(abs, values)) < 0.05


def test_smoothing_takes_structure_away_and_sharpening_adds_it():
    reference = anatomy()
    low_dose = reference + np.random.default_rng(2).normal(0, 20, reference.shape)
    removed = low_dose - gaussian_filter(low_dose, 2.0)  # what a blur calls noise
    added = low_dose - (low_dose + 0.5 * (low_dose - gaussian_filter(low_dose, 3.0)))
    assert edge_correlation(tensor(removed), tensor(reference)).item() > 0.1
    assert edge_correlation(tensor(added), tensor(reference)).item() < -0.1


def test_nothing_removed_or_no_edges_is_no_structure():
    reference = tensor(anatomy())
    assert edge_correlation(torch.zeros_like(reference), reference).item() == 0
    assert edge_correlation(reference, torch.zeros_like(reference)).item() == 0


def test_shapes_must_be_alike():
    with pytest.raises(ValueError, match="the same shape"):
        edge_correlation(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 17))


def test_validation_metrics_hold_the_mean_over_slices():
    reference = [tensor(anatomy(k)) for k in range(3)]
    noise = [0.3 * edges(x) + 10 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)) for x in reference]
    outputs = [{"image": x + n, "label": x, "pred": x, "content": x, "denoised": x} for x, n in zip(reference, noise)]
    batches = [{key: torch.cat([outputs[0][key], outputs[1][key]]) for key in outputs[0]}, outputs[2]]
    engine = Engine(lambda _engine, batch: batch)
    metrics = validation_metrics(4096)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run(batches)
    assert list(metrics) == [*quality_metrics(4096), "edge_correlation"]
    expected = torch.cat([edge_correlation(n, x) for n, x in zip(noise, reference)]).mean().item()
    assert engine.state.metrics["edge_correlation"] == pytest.approx(expected, abs=1e-4)


def test_local_correlation_is_numpys_in_each_window():
    reference, rng = anatomy(), np.random.default_rng(1)
    noise = rng.normal(0, 20, reference.shape)
    noise[:, 48:] += edges(tensor(reference))[0, 0, :, 48:].numpy()  # one half gave structure away
    found = local_edge_correlation(tensor(noise), tensor(reference))[0, 0].numpy()
    assert found.shape == (5, 5)
    edge = edges(tensor(reference))[0, 0].numpy()
    for i, j in ((0, 0), (2, 3), (4, 4)):
        place = np.s_[16 * i : 16 * i + 32, 16 * j : 16 * j + 32]
        expected = np.corrcoef(noise[place].ravel(), edge[place].ravel())[0, 1]
        assert found[i, j] == pytest.approx(expected, abs=1e-4)
    assert found[:, 3:].mean() > 0.2
    assert np.abs(found[:, :2].mean()) < 0.05


def test_windows_without_edges_tell_nothing():
    reference = torch.zeros(1, 1, 96, 96)
    reference[..., 60:, 60:] = 300
    found = local_edge_correlation(torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(0)), reference)
    assert found[0, 0, 0, 0].isnan()
    assert found[0, 0, 3, 3].isfinite()
    assert local_edge_correlation(torch.zeros(1, 1, 96, 96), reference).isnan().all()
