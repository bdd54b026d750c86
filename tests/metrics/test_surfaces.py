"""Distances of surfaces against every pair of voxels, and pieces against what they are by construction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from src.metrics.surfaces import average_distance, hausdorff_95, pieces, surface_dice, surface_distances

Body = npt.NDArray[np.bool_]
Spacing = tuple[float, ...]


def surface(body: Body, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Places in mm of voxels that have a neighbour outside, found one by one."""
    padded = np.pad(body, 1)
    found = [
        at for at in np.argwhere(padded)
        if not all(padded[tuple(at + step)] for axis in np.eye(body.ndim, dtype=int) for step in (axis, -axis))
    ]  # fmt: skip
    places: npt.NDArray[np.float64] = (np.array(found) - 1) * np.array(spacing)
    return places


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Body, Body, Spacing]:
    ndim = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 7)) for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    made = []
    for _ in range(2):
        body = ndimage.gaussian_filter(rng.normal(size=shape), draw(st.sampled_from([0, 0.7]))) > draw(
            st.sampled_from([-0.3, 0.0, 0.4])
        )
        body[tuple(rng.integers(0, shape))] = True  # never empty
        made.append(body)
    return made[0], made[1], tuple(draw(st.sampled_from([0.4, 1.0, 2.5])) for _ in range(ndim))


@settings(max_examples=60, deadline=None)
@given(bodies(), st.sampled_from([0.5, 1.0, 3.0]))
def test_all_pairs_of_voxels_say_the_same(made: tuple[Body, Body, Spacing], tolerance: float) -> None:
    predicted, truth, spacing = made
    apart = cdist(surface(predicted, spacing), surface(truth, spacing))
    there, back = apart.min(axis=1), apart.min(axis=0)
    found = surface_distances(predicted, truth, spacing)
    assert np.allclose(np.sort(found[0]), np.sort(there)) and np.allclose(np.sort(found[1]), np.sort(back))
    assert hausdorff_95(found) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert average_distance(found) == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)))
    near = (there <= tolerance + 1e-9).sum() + (back <= tolerance + 1e-9).sum()
    assert surface_dice(found, tolerance + 1e-9) == pytest.approx(near / (len(there) + len(back)))


def test_a_shifted_box_is_as_far_as_it_was_shifted() -> None:
    truth = np.zeros((20, 20, 20), bool)
    truth[4:9, 4:9, 4:9] = True
    found = surface_distances(np.roll(truth, 3, axis=0), truth, (2.0, 1.0, 1.0))
    assert hausdorff_95(found) == 6.0
    assert surface_dice(found, 6.0) == 1.0 and surface_dice(found, 0.5) < 0.7


def test_pieces_meet_or_do_not() -> None:
    truth, predicted = np.zeros((2, 9, 9), bool)[:, None].repeat(3, axis=1)
    truth[1, 0:2, 0:2] = truth[1, 4, 4] = truth[2, 5, 5] = True  # the latter two touch at a corner: one piece
    truth[0, 8, 8] = True
    predicted[1, 1, 1] = predicted[1, 1, 7] = True
    assert pieces(predicted, truth) == (1, 2, 1)
    assert pieces(truth, truth) == (3, 0, 0)
