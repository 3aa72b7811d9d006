import numpy as np
import pytest
import torch

from ct_cncl.pipeline.losses import content_distance, gram_matrices, texture_distance

SHAPE = (2, 5, 12, 8)


def features(seed=0, shape=SHAPE, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gram_by_loops(maps):
    """(B, C, C) of a numpy array (B, C, H, W)."""
    batch, channels, height, width = maps.shape
    result = np.zeros((batch, channels, channels))
    for b in range(batch):
        for i in range(channels):
            for j in range(channels):
                total = 0.0
                for y in range(height):
                    for x in range(width):
                        total += maps[b, i, y, x] * maps[b, j, y, x]
                result[b, i, j] = total / (height * width * channels)
    return result


def test_gram_equals_loops():
    own = gram_matrices(features())
    assert own.shape == (2, 1, 5, 5)
    np.testing.assert_allclose(own[:, 0].numpy(), gram_by_loops(features().numpy()), rtol=1e-12)


def test_local_gram_equals_the_gram_of_every_square():
    own = gram_matrices(features(), window=4)
    assert own.shape == (2, 6, 5, 5)
    squares = [features()[..., y : y + 4, x : x + 4] for y in (0, 4, 8) for x in (0, 4)]
    for number, square in enumerate(squares):
        np.testing.assert_allclose(own[:, number].numpy(), gram_by_loops(square.numpy()), rtol=1e-12)


def test_local_gram_leaves_a_rest_out_and_takes_small_maps_whole():
    torch.testing.assert_close(gram_matrices(features(), window=5), gram_matrices(features()[..., :10, :5], window=5))
    torch.testing.assert_close(gram_matrices(features(), window=100), gram_matrices(features()))
    own = gram_matrices(features(), window=10)  # wider than the map, not higher
    torch.testing.assert_close(own, gram_matrices(features()[..., :10, :]))


def test_texture_distance_equals_hand_computation():
    own = texture_distance(features(0), features(1)).item()
    difference = gram_by_loops(features(0).numpy()) - gram_by_loops(features(1).numpy())
    norms = np.sqrt((difference**2).sum(axis=(1, 2)) + 1e-8) - 1e-4
    assert own == pytest.approx(norms.mean(), rel=1e-10)


def test_texture_distance_grows_with_the_square_of_the_contrast():
    """Not with its fourth power, by which a patch with bone outvoted 100 others."""
    once, tenfold = (texture_distance(scale * features(0), scale * features(1)).item() for scale in (1, 10))
    assert tenfold == pytest.approx(100 * once, rel=1e-3)


def test_texture_distance_has_a_finite_gradient_wherever_it_is_small():
    for difference in (0.0, 1e-12, 1e-6, 1e-3):
        own = (features(0).float() + difference).requires_grad_(True)
        texture_distance(own, features(0).float()).backward()
        assert own.grad.isfinite().all()
        assert (own.grad.abs().max() == 0) == (difference < 1e-9)


@pytest.mark.parametrize("window", [None, 4])
def test_texture_distance_does_not_depend_on_patch_or_batch_size(window):
    """The same texture over a larger patch, the same images more often."""
    own, target = features(0), features(1)
    once = texture_distance(own, target, window=window).item()
    larger = texture_distance(own.repeat(1, 1, 3, 2), target.repeat(1, 1, 3, 2), window=window).item()
    more = texture_distance(own.repeat(4, 1, 1, 1), target.repeat(4, 1, 1, 1), window=window).item()
    assert larger == pytest.approx(once, rel=1e-12)
    assert more == pytest.approx(once, rel=1e-12)


def test_two_halves_of_a_batch_average_to_the_whole():
    """As several processes do; one Gram matrix over the batch would not."""
    own, target = features(0), features(1)
    halves = [texture_distance(own[k : k + 1], target[k : k + 1]).item() for k in (0, 1)]
    assert np.mean(halves) == pytest.approx(texture_distance(own, target).item(), rel=1e-12)


def test_texture_is_blind_to_where_and_local_texture_is_not():
    own = features()
    shuffled = own.flatten(2)[..., torch.randperm(96, generator=torch.Generator().manual_seed(2))].view(SHAPE)
    assert texture_distance(own, shuffled).item() == pytest.approx(0, abs=1e-20)
    assert texture_distance(own, shuffled, window=4).item() > 0.01


@pytest.mark.parametrize("distance", [texture_distance, content_distance])
def test_equal_maps_cost_nothing(distance):
    assert distance(features(), features()).item() == 0


@pytest.mark.parametrize(("norm", "error"), [("l1", np.abs), ("l2", np.square)])
def test_content_distance_equals_hand_computation(norm, error):
    own = content_distance(features(0), features(1), norm=norm).item()
    assert own == pytest.approx(error(features(0).numpy() - features(1).numpy()).mean(), rel=1e-12)


def test_content_distance_refuses_another_norm():
    with pytest.raises(ValueError, match="'l1' or 'l2'"):
        content_distance(features(), features(), norm="l3")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_squared_in_float32(dtype):
    """300 squared is beyond float16; 1 + 2^-9 squared is 1 in bfloat16."""
    large = torch.full((1, 2, 64, 64), 300.0, dtype=dtype)
    assert gram_matrices(large).dtype == torch.float32
    assert gram_matrices(large).flatten().tolist() == pytest.approx([45000.0] * 4)
    own, target = (features(seed, (1, 3, 32, 32)).to(dtype) for seed in (0, 1))
    for distance in (texture_distance, content_distance):
        expected = distance(own.double(), target.double()).item()
        assert distance(own, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", [texture_distance, content_distance])
def test_autocast_does_not_reach_the_distances(distance):
    own, target = features(0, (1, 8, 33, 31), torch.float32), features(1, (1, 8, 33, 31), torch.float32)
    alone = distance(own, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = distance(own, target)
    assert under.dtype == torch.float32
    assert under.item() == alone.item()


@pytest.mark.parametrize("window", [None, 4])
def test_gradient_of_the_texture_distance(window):
    own = features(0, (1, 2, 6, 5)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: texture_distance(x, features(1, (1, 2, 6, 5)), window=window), (own,))


def test_centred_distance_equals_hand_computation():
    own = texture_distance(features(0), features(1), window=4, centred=True).item()
    distances = []
    for y in (0, 4, 8):
        for x in (0, 4):
            pair = [features(seed)[..., y : y + 4, x : x + 4].numpy() for seed in (0, 1)]
            grams = [gram_by_loops(maps - maps.mean(axis=(2, 3), keepdims=True)) for maps in pair]
            difference, wanted = (np.sqrt((g**2).sum(axis=(1, 2))) for g in (grams[0] - grams[1], grams[1]))
            distances.append((np.sqrt(difference**2 + 1e-8) - 1e-4) / (wanted + 0.01))
    assert own == pytest.approx(np.mean(distances), rel=1e-10)


def test_centred_distance_is_the_relative_difference_of_noise_power_whatever_the_level():
    """A quarter of the noise's standard deviation left: 1 - 1/16 of its power is missing."""
    noise = features(3, (4, 8, 32, 32))
    level = torch.arange(8.0, dtype=torch.float64).view(1, 8, 1, 1)
    own = texture_distance(0.25 * noise + 100 * level, noise + 3 * level, window=16, centred=True).item()
    assert own == pytest.approx(1 - 1 / 16, rel=0.03)
    assert texture_distance(noise + level, noise, window=16, centred=True).item() == pytest.approx(0, abs=1e-6)
    assert texture_distance(noise + level, noise, window=16).item() > 1  # the Gram matrices themselves see the level
