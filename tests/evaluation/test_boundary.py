"""Boundary IoU and trimap curves against independent ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from src.evaluation.boundary import Boundaries, inner_boundary, thickness

Mask = npt.NDArray[np.uint8]
K = 4


def blobs(seed: int, height: int = 37, width: int = 52) -> Mask:
    """Classes 0 to 3 in patches, some of which touch the border."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 3)
    classes: Mask = np.digitize(smooth, np.quantile(smooth, [0.3, 0.6, 0.8])).astype(np.uint8)
    return classes


def authors_boundary(mask: npt.NDArray[np.bool_], ratio: float) -> npt.NDArray[np.bool_]:
    """As the public code of Cheng et al. has it: a border of zeros, so many erosions by 3 x 3, the difference."""
    height, width = mask.shape
    dilation = max(1, round(ratio * math.sqrt(height**2 + width**2)))
    padded = np.pad(mask, 1)
    # what lies beyond the padded image takes nothing away, as in OpenCV
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3)), dilation, border_value=1)
    boundary: npt.NDArray[np.bool_] = mask & ~eroded[1:-1, 1:-1]
    return boundary


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.06, 0.4])
def test_boundary_iou_is_the_authors(ratio: float) -> None:
    ours = Boundaries(K, 255, ratio)
    shared, either = np.zeros(K, int), np.zeros(K, int)
    for seed in range(6):
        truth, given = blobs(seed), blobs(seed + (seed % 2))
        given = np.roll(given, 3, axis=1)
        ours.add(torch.from_numpy(given), torch.from_numpy(truth))
        for k in range(K):
            one, other = authors_boundary(truth == k, ratio), authors_boundary(given == k, ratio)
            shared[k] += (one & other).sum()
            either[k] += (one | other).sum()
    found = ours.finish()
    assert found[0].tolist() == shared.tolist()
    assert found[1].tolist() == either.tolist()
    assert 0 < shared.sum() < either.sum()


def test_thickness_is_at_least_a_pixel_and_never_more_than_the_region() -> None:
    assert (thickness(1024, 2048, 0.02), thickness(8, 8, 0.02)) == (46, 1)
    everything = torch.ones(20, 30, dtype=torch.bool)
    frame = inner_boundary(everything, 2)
    assert int(frame.sum()) == 20 * 30 - 16 * 26
    assert bool(inner_boundary(everything, 50).all())


def test_ignored_pixels_are_of_no_class() -> None:
    truth, given = blobs(1), blobs(2)
    truth[5:20, 8:30] = 255
    ours = Boundaries(K, 255, 0.04)
    ours.add(torch.from_numpy(given), torch.from_numpy(truth))
    known = truth != 255
    for k in range(K):
        one, other = (authors_boundary((mask == k) & known, 0.04) for mask in (truth, given))
        assert int(ours.finish()[0][k]) == (one & other).sum()
        assert int(ours.finish()[1][k]) == (one | other).sum()


def test_trimap_bands_are_those_of_a_distance_transform() -> None:
    widths = (1, 2, 4, 9)
    truth, given = blobs(3), blobs(4)
    truth[0:4, 0:9] = 255
    ours = Boundaries(K, 255, 0.02, widths)
    ours.add(torch.from_numpy(given), torch.from_numpy(truth))
    edge = np.zeros(truth.shape, bool)
    for y, x in np.ndindex(*truth.shape):
        near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [(v, u) for v, u in near if 0 <= v < truth.shape[0] and 0 <= u < truth.shape[1]]
        edge[y, x] = any(truth[at] != truth[y, x] for at in inside)
    distance = ndimage.distance_transform_cdt(~edge, "chessboard")
    bands = ours.finish()[2]
    for at, width in enumerate(widths):
        band = (distance < width) & (truth != 255)
        expected = np.zeros((K, K), int)
        np.add.at(expected, (truth[band], given[band]), 1)
        assert bands[at].tolist() == expected.tolist()
    assert bands[0].sum() < bands[1].sum() < (truth != 255).sum()
