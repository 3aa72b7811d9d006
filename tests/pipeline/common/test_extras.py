import pytest

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.common.extras import require
from ct_cncl.pipeline.interpolation.run import scan_alpha


def missing(monkeypatch, *names):
    """As where these packages are not installed."""
    monkeypatch.setattr("ct_cncl.pipeline.common.extras.find_spec", lambda name: None if name in names else object())


def test_a_missing_package_is_said_with_its_extra():
    with pytest.raises(ConfigError, match=r"no_such_package to fly, but .*pip install 'ct-cncl\[wings\]'"):
        require("no_such_package", extra="wings", purpose="to fly")
    require("json", extra="none", purpose="to read")


def test_a_scan_without_matplotlib_ends_before_it_begins(monkeypatch, tmp_path):
    missing(monkeypatch, "matplotlib")
    with pytest.raises(ConfigError, match=r"ct-cncl\[report\]"):
        scan_alpha(tmp_path / "a", tmp_path / "b", alphas=[0.0], out=tmp_path)
