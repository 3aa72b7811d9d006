import pytest

from ct_cncl.pipeline.common.checkpoint_file import missing_checkpoint
from ct_cncl.pipeline.training.trained import trained_network
from ct_cncl.pipeline.weights.load import open_weights


def test_a_run_in_the_place_of_its_checkpoint_is_told_apart_from_none(tmp_path):
    """It used to be said that a folder with a best.pt holds no checkpoint."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pt").touch()
    assert str(missing_checkpoint(tmp_path / "run")).endswith(f"run is a folder. Name {tmp_path / 'run' / 'best.pt'}.")
    for refuse in (lambda path: open_weights(path, "cpu"), trained_network):
        with pytest.raises(ValueError, match="is a folder. Name .*best.pt"):
            refuse(tmp_path / "run")
        with pytest.raises(ValueError, match="does not exist. Name a run's best.pt"):
            refuse(tmp_path / "other")
