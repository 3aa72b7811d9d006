"""Several images at one place: neighbours are of the same phase, whatever tells the phases apart."""

import numpy as np
import pytest
from series_files import ct_slice, enhanced, save

from ct_cncl.transforms.series import find_scans
from ct_cncl.transforms.series.slices import open_slices

PLACES, PHASES = 4, 3


def numbered(how: str, phase: int, place: int) -> dict:
    """What the header says of an image; the file's name says something else."""
    once = {"InstanceNumber": 1}
    return {
        "TemporalPositionIdentifier": once | {"TemporalPositionIdentifier": phase + 1},
        "AcquisitionNumber": once | {"AcquisitionNumber": 10 - phase},
        "NominalPercentageOfCardiacPhase": once | {"NominalPercentageOfCardiacPhase": 30.0 * phase},
        "KVP": once | {"KVP": (140, 80, 120)[phase]},
        "MonoenergeticEnergyEquivalent": once | {"MonoenergeticEnergyEquivalent": 40.0 + 10 * phase},
        "ConvolutionKernel": once | {"ConvolutionKernel": ("B70f", "B30f", "B45f")[phase]},
        "AcquisitionTime": once | {"AcquisitionTime": f"12000{phase}.25"},
        "phase by phase": {"InstanceNumber": phase * PLACES + place + 1},
        "place by place": {"InstanceNumber": place * PHASES + phase + 1},
        "there and back": {"InstanceNumber": phase * PLACES + (PLACES - place if phase % 2 else place + 1)},
        "a time of its own": {"InstanceNumber": phase * PLACES + place + 1, "AcquisitionTime": f"1200{phase}{place}"},
    }[how]


HOW = [
    "TemporalPositionIdentifier", "AcquisitionNumber", "NominalPercentageOfCardiacPhase", "KVP", "MonoenergeticEnergyEquivalent",
    "ConvolutionKernel", "AcquisitionTime",
    "phase by phase", "place by place", "there and back", "a time of its own",
]  # fmt: skip


def four_dimensional(folder, how, lacking=()):
    files = np.random.default_rng(2).permutation(PLACES * PHASES)
    for phase in range(PHASES):
        for place in range(PLACES):
            if (phase, place) in lacking:
                continue
            stored = np.full((4, 6), 100 * phase + place)
            ds = ct_slice(stored, (0, 0, 2.0 * place), StudyInstanceUID="1.9", **numbered(how, phase, place))
            save(ds, folder / f"{files[phase * PLACES + place]:02d}.dcm")
    return folder


def phase_and_place(slices, number):
    return divmod(round(float(slices.read(number).hu[0, 0]) + 1024), 100)


def opened(path, scratch):
    scratch.mkdir()
    (source,) = find_scans(path)
    return open_slices(source, scratch)


@pytest.mark.parametrize("how", HOW)
def test_neighbours_are_of_the_same_phase(tmp_path, how):
    slices = opened(four_dimensional(tmp_path / "in", how), tmp_path / "scratch")
    assert slices.count == PLACES * PHASES
    for number in range(slices.count):
        phase, place = phase_and_place(slices, number)
        for steps in (-2, -1, 0, 1, 2):
            expected = (phase, min(max(place + steps, 0), PLACES - 1))
            assert phase_and_place(slices, slices.neighbour(number, steps)) == expected


def test_frames_of_multi_frame_files_are_told_by_their_functional_groups(tmp_path):
    places = [(phase, place) for place in range(PLACES) for phase in range(PHASES)]
    stored = np.stack([np.full((4, 6), 100 * phase + place) for phase, place in places])
    ds = enhanced(stored, [(0, 0, 2.0 * place) for _, place in places])
    for (phase, _), group in zip(places, ds.PerFrameFunctionalGroupsSequence, strict=True):
        content = type(ds)()
        content.TemporalPositionIndex = PHASES - phase
        group.FrameContentSequence = [content]
        group.PixelValueTransformationSequence[0].RescaleSlope = 1
    save(ds, tmp_path / "a.dcm")
    slices = opened(tmp_path / "a.dcm", tmp_path / "scratch")
    for number, (phase, place) in enumerate(places):
        other = places[slices.neighbour(number, 1)]
        assert other == (phase, min(place + 1, PLACES - 1))


def test_where_a_phase_lacks_a_slice_the_next_place_still_counts(tmp_path):
    """Never another image of the same place; of the place next to it the nearest phase where its own is missing."""
    slices = opened(four_dimensional(tmp_path / "in", "AcquisitionNumber", {(1, 2)}), tmp_path / "scratch")
    for number in range(slices.count):
        phase, place = phase_and_place(slices, number)
        near = phase_and_place(slices, slices.neighbour(number, 1))
        assert near[1] == min(place + 1, PLACES - 1)
        assert near[0] == phase or (phase, place) == (1, 1)


def test_overlapping_acquisitions_go_on_in_the_next(tmp_path):
    """Two acquisitions that share one place: each slice's neighbours are those next to it."""
    for acquisition, places in ((1, range(3)), (2, range(2, 5))):
        for place in places:
            stored = np.full((4, 6), 100 * acquisition + place)
            ds = ct_slice(stored, (0, 0, 2.0 * place), AcquisitionNumber=acquisition)
            save(ds, tmp_path / "in" / f"{acquisition}{place}.dcm")
    slices = opened(tmp_path / "in", tmp_path / "scratch")
    after = {phase_and_place(slices, k): phase_and_place(slices, slices.neighbour(k, 1)) for k in range(6)}
    assert after == {(1, 0): (1, 1), (1, 1): (1, 2), (1, 2): (2, 3), (2, 2): (2, 3), (2, 3): (2, 4), (2, 4): (2, 4)}
