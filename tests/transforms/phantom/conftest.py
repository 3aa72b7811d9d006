"""Phantoms that several tests look at, made once."""

from __future__ import annotations

import pytest

from ct_cncl.transforms.phantom import Phantom, anatomical_phantom


@pytest.fixture(scope="session")
def abdomens() -> list[Phantom]:
    return [anatomical_phantom(seed, slices=2, size=256, region="abdomen") for seed in (1, 2, 6, 8, 22)]


@pytest.fixture(scope="session")
def chests() -> list[Phantom]:
    return [anatomical_phantom(seed, slices=2, size=256, region="chest") for seed in (3, 9, 11)]
