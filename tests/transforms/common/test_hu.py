import numpy as np
import pytest
import torch

from ct_cncl.transforms.common.hu import HU_OFFSET, HU_RANGE, WINDOWS, Window, apply_window, to_hu, to_network


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_hu_come_back_exactly_far_beyond_what_scanners_store(dtype):
    hu = np.arange(-3024, 20001, dtype=dtype)
    back = to_hu(to_network(hu))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, hu)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_hu_come_back_exactly_as_tensors(device, dtype):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    hu = torch.arange(-3024, 20001, dtype=dtype, device=device)
    back = to_hu(to_network(hu))
    assert back.dtype == dtype
    assert torch.equal(back, hu)


def test_the_twelve_bit_range_has_length_one_and_nothing_is_clipped():
    hu = torch.tensor([-3024.0, -1024.0, 0.0, 1024.0, 3072.0, 20000.0], dtype=torch.float64)
    assert to_network(hu).tolist() == [-2000 / 4096, 0.0, 0.25, 0.5, 1.0, 21024 / 4096]
    assert (HU_OFFSET, HU_RANGE) == (1024.0, 4096.0)


def test_window_edges_are_black_and_white_and_beyond_is_clipped():
    hu = np.array([-3024.0, -150.0, 50.0, 150.0, 250.0, 20000.0])
    assert apply_window(hu, WINDOWS["abdomen"]).tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]
    assert apply_window(torch.from_numpy(hu), WINDOWS["abdomen"]).tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


def test_the_full_window_is_the_network_range():
    hu = np.arange(-1024.0, 3073.0)
    np.testing.assert_array_equal(apply_window(hu, WINDOWS["full"]), to_network(hu))


def test_windows_say_their_edges_and_name():
    assert (WINDOWS["chest"].low, WINDOWS["chest"].high) == (-1350.0, 150.0)
    assert str(Window(40.0, 80.0)) == "40/80 HU"
