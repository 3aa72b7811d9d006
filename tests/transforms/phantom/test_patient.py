"""Drawn parameters lie in their stated ranges and cover them."""

from __future__ import annotations

import numpy as np
import pytest

from ct_cncl.transforms.phantom.patient import PHASES, Patient, draw_patient


def patients(region: str | None, count: int = 60) -> list[Patient]:
    return [draw_patient(np.random.default_rng((seed, 0)), region) for seed in range(count)]


@pytest.mark.parametrize(("region", "low", "high"), [("chest", 15, 150), ("abdomen", -155, -25), (None, -160, 155)])
def test_the_slab_lies_in_its_region(region, low, high):
    centres = [p.centre for p in patients(region)]
    assert low <= min(centres) < low + 0.2 * (high - low)
    assert high - 0.2 * (high - low) < max(centres) <= high


def test_the_region_moves_only_the_slab():
    chest, abdomen = patients("chest", 1)[0], patients("abdomen", 1)[0]
    assert chest.centre != abdomen.centre
    assert (chest.spacing, chest.fat, chest.density, chest.organs, chest.table) == (
        abdomen.spacing,
        abdomen.fat,
        abdomen.density,
        abdomen.organs,
        abdomen.table,
    )


def test_habitus_and_density_cover_what_is_asked():
    drawn = patients(None, 150)
    fat = [p.fat for p in drawn]
    assert min(fat) < 6
    assert max(fat) > 28
    assert all(0.65 <= p.spacing <= 0.92 for p in drawn)
    aorta = [p.density["aorta"] for p in drawn]
    assert min(aorta) >= 38
    assert max(aorta) <= 350
    assert max(aorta) > 250
    assert all(55 <= p.density["liver"] <= 120 for p in drawn)


def test_cortex_follows_the_phase():
    assert all(phase["cortex"][0] > 130 for name, phase in PHASES.items() if name != "none")
    assert PHASES["none"]["cortex"][1] < 40
