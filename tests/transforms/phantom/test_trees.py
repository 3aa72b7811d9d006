"""Vessel trees reach all targets and thin out."""

from __future__ import annotations

import numpy as np

from ct_cncl.transforms.phantom.trees import scatter, supply


def ball(points):
    return np.linalg.norm(points, axis=1) - 30


def test_scatter_stays_inside():
    points = scatter(np.random.default_rng(0), 200, np.full(3, -30.0), np.full(3, 30.0), ball)
    assert points.shape == (200, 3)
    assert ball(points).max() < 0


def test_a_tree_starts_at_its_root_and_ends_at_every_target():
    rng = np.random.default_rng(1)
    root = np.array([-30.0, 0, 0])
    targets = scatter(rng, 150, np.full(3, -30.0), np.full(3, 30.0), ball)
    tree = supply(rng, root, targets, tip=0.4)
    assert np.linalg.norm(tree.start - root, axis=1).min() < 1e-4
    gap = np.linalg.norm(tree.end[None] - targets[:, None], axis=2).min(axis=1)
    assert gap.max() < 1e-4


def test_vessels_are_thick_at_the_root_and_thin_at_the_periphery():
    rng = np.random.default_rng(2)
    root = np.array([-30.0, 0, 0])
    targets = scatter(rng, 300, np.full(3, -30.0), np.full(3, 30.0), ball)
    tree = supply(rng, root, targets, tip=0.4)
    far = np.linalg.norm(tree.end - root, axis=1)
    assert tree.r0.max() > 5 * tree.r0.min()
    assert tree.r0[far < 12].mean() > 2 * tree.r0[far > 45].mean()
