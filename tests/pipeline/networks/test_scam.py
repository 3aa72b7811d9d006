import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ct_cncl.pipeline.networks.scam import SCAM


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(module):
    module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=number + 10)
    return module


def naive_norm(norm, vector):
    mean = sum(vector) / len(vector)
    variance = sum((v - mean) ** 2 for v in vector) / len(vector)
    scales = zip(vector, norm.weight.tolist(), norm.bias.tolist())
    return [w * (v - mean) / math.sqrt(variance + norm.eps) + b for v, w, b in scales]


def naive_point(convolution, vector):
    weight, bias = convolution.weight[:, :, 0, 0].tolist(), convolution.bias.tolist()
    return [sum(w * v for w, v in zip(row, vector)) + b for row, b in zip(weight, bias)]


def naive_scam(module, left, right):
    left_out, right_out = left.clone(), right.clone()
    for b, row in itertools.product(range(len(left)), range(left.shape[2])):
        views = {}
        for name, image in (("left", left), ("right", right)):
            pixels = image[b, :, row].T.tolist()
            norm, query, value = (getattr(module, f"{name}_{part}") for part in ("norm", "query", "value"))
            views[name] = [(naive_point(query, naive_norm(norm, p)), naive_point(value, p)) for p in pixels]
        for me, other, out, scale in (
            ("left", "right", left_out, module.beta),
            ("right", "left", right_out, module.gamma),
        ):
            for column, (query, _) in enumerate(views[me]):
                dots = [sum(x * y for x, y in zip(query, key)) / math.sqrt(len(query)) for key, _ in views[other]]
                weights = [math.exp(d) / sum(math.exp(e) for e in dots) for d in dots]
                found = [sum(w * v[c] for w, (_, v) in zip(weights, views[other])) for c in range(out.shape[1])]
                out[b, :, row, column] += scale.flatten() * torch.tensor(found, dtype=out.dtype)
    return left_out, right_out


@pytest.mark.parametrize(("left_channels", "right_channels"), [(3, 3), (4, 2), (2, 5)])
def test_equals_loops_over_rows(left_channels, right_channels):
    module = randomised(SCAM(left_channels, right_channels))
    left, right = random(2, left_channels, 3, 4), random(2, right_channels, 3, 4, seed=1)
    for got, expected in zip(module(left, right), naive_scam(module, left, right)):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_starts_as_nothing():
    left, right = torch.rand(1, 4, 3, 5), torch.rand(1, 4, 3, 5)
    for got, expected in zip(SCAM(4, 4)(left, right), (left, right)):
        assert torch.equal(got, expected)


def test_a_row_sees_no_other_row():
    module = randomised(SCAM(2, 2))
    left, right = random(1, 2, 4, 5), random(1, 2, 4, 5, seed=1)
    changed = right.clone()
    changed[:, :, 2] += 1
    difference = (module(left, changed)[0] - module(left, right)[0]).abs().amax(dim=(0, 1, 3))
    assert (difference > 0).tolist() == [False, False, True, False]


def test_no_map_of_a_whole_slice_is_held():
    """512 maps of 512 x 512 float32 would be 512 MiB; nothing here is larger than the feature maps."""
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            tensors = [result] if isinstance(result, torch.Tensor) else [t for t in result if torch.is_tensor(t)]
            largest.extend(t.numel() for t in tensors)
            return result

    module = SCAM(4, 4)
    x = torch.rand(1, 4, 8, 512)
    with torch.no_grad(), Watch():
        module(x, x)
    assert max(largest) == x.numel()
