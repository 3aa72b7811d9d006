import numpy as np
import pytest


@pytest.fixture
def volume() -> np.ndarray:
    """(5, 4, 3) whole HU from -3024 to 10000."""
    values = np.random.default_rng(1).integers(-1100, 3100, (5, 4, 3))
    values[0, 0, 0], values[4, 3, 2] = -3024, 10000
    return values.astype(np.float32)
