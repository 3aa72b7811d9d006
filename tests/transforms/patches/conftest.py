import numpy as np
import pytest
from tiny_pairs import entry


@pytest.fixture
def data(tmp_path):
    """Two entries of 3 and 2 slices, every voxel with a value of its own, all of it body."""
    first = np.arange(20 * 16 * 3, dtype=np.int16).reshape(20, 16, 3)
    second = np.arange(12 * 18 * 2, dtype=np.int16).reshape(12, 18, 2) + np.int16(5000)
    return [entry(tmp_path, "a", first), entry(tmp_path, "b", second)]
