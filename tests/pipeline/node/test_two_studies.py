"""One SeriesInstanceUID in two studies, as some anonymizers and phantoms make it: two series, never one of both."""

import pytest
from dicom_archive import write_series
from tiny_node import Destination, config, files_of, running, send, until
from tiny_weights import tiny_cncl

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")


def test_one_series_uid_in_two_studies_makes_a_series_in_each(tmp_path):
    weights, _ = tiny_cncl(tmp_path / "run")
    both = []
    for number, study in ((1, "1.2.3.1"), (2, "1.2.3.2")):
        write_series(tmp_path / study, number, slices=3, SeriesInstanceUID="1.2.3.9", StudyInstanceUID=study)
        both.append(files_of(tmp_path / study))
    with Destination() as there, running(config(tmp_path, there, weights)) as node:
        interleaved = [file for pair in zip(*both) for file in pair]
        assert send(interleaved, node.port) == [0] * 6
        assert until(lambda: node.states() == ["done", "done"]), node.log.read_text()
        jobs = node.rows(
            "SELECT jobs.study, COUNT(*) FROM jobs JOIN members ON job = jobs.id WHERE used = 1 GROUP BY jobs.id ORDER BY study"
        )
        assert jobs == [("1.2.3.1", 3), ("1.2.3.2", 3)]
        found = there.series()
    assert len(found) == 2  # results have series UIDs of their own, one for each study
    assert {str(made[0].StudyInstanceUID) for made in found.values()} == {"1.2.3.1", "1.2.3.2"}
    for made in found.values():
        assert len(made) == 3
        assert len({str(dataset.StudyInstanceUID) for dataset in made}) == 1
