"""Devices that are not here, or compute nothing, are refused in one line."""

import pytest

from ct_cncl.pipeline.common.devices import checked_device
from ct_cncl.pipeline.common.errors import ConfigError


@pytest.mark.parametrize("name", ["nonsense", "", "CPU", "cuda:99", "meta", "mps", "xla"])
def test_refused(name):
    with pytest.raises(ConfigError) as caught:
        checked_device(name)
    assert f"Expected a device of this machine (auto, cpu, cuda, cuda:N), but got {name!r}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350  # torch goes on about its builds
    assert not str(caught.value).endswith("..")


def test_the_cpu_is_always_here():
    assert checked_device("cpu") == "cpu"
