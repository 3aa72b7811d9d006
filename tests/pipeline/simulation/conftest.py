"""What the tests of ``simulate`` count."""

import pytest

from ct_cncl.pipeline.simulation import calibrating, simulating


@pytest.fixture
def count(monkeypatch):
    """Counts the scans that are made and the calibrations."""
    calls = {"low_dose": 0, "calibrate": 0}

    def counted(name, original):
        def call(*args, **options):
            calls[name] += 1
            return original(*args, **options)

        return call

    monkeypatch.setattr(simulating, "stream_slices", counted("low_dose", simulating.stream_slices))
    monkeypatch.setattr(calibrating, "calibrate", counted("calibrate", calibrating.calibrate))
    return calls
