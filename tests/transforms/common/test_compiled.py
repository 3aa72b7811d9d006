import subprocess
import sys

import numba
import pytest

from ct_cncl.transforms.common.compiled import compiled

READ_ONLY = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []  # what a read-only installation without a home comes to
import numba
try:
    numba.njit(cache=True)(lambda x: x)
    raise SystemExit("the case is not what it was")
except RuntimeError as error:
    assert "no locator available" in str(error)
import numpy as np
from ct_cncl.transforms.physics import ParallelBeam, project
beam = ParallelBeam(views=4, channels=8, channel_spacing_mm=1.0)
print(round(float(project(np.ones((4, 4)), (1.0, 1.0), beam)[0].sum())))
"""


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same():
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=False)
    assert done.stdout == "16\n", done.stderr


def test_other_refusals_of_numba_are_not_hidden():
    with pytest.raises(numba.core.errors.TypingError):
        compiled(cache=False)(lambda x: x.nothing)(1)
