"""How far apart the surfaces of two bodies are, and which of their connected pieces meet: figures of a case in mm.

The surface is the voxels of a body that have a neighbour outside it, across a face. Beyond the volume is outside. Distances are
Euclidean, by the voxels' spacing. So MONAI's metrics have it. They need SciPy: `pip install -e ".[medical]"`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.optional_packages import needs

Body = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


def surface_distances(given: Body, truth: Body, spacing: Sequence[float]) -> tuple[Distances, Distances]:
    """Distances in the unit of `spacing` from each surface voxel of `given` to the surface of `truth`, and the reverse.

    Args:
        given, truth: bool of one shape, with one or more voxels each.
        spacing: side of a voxel along each axis.
    """
    ndimage = needs("scipy.ndimage", "medical")
    box = _box(given | truth)
    surfaces = [_surface(body[box]) for body in (given, truth)]
    to_given, to_truth = (ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces)
    return to_truth[surfaces[0]], to_given[surfaces[1]]


def hausdorff_95(distances: tuple[Distances, Distances]) -> float:
    """The larger of both directions' 95th percentiles (HD95)."""
    return max(float(np.percentile(one, 95)) for one in distances)


def average_distance(distances: tuple[Distances, Distances]) -> float:
    """The mean over the surface voxels of both bodies (ASSD)."""
    return float(np.concatenate(distances).mean())


def surface_dice(distances: tuple[Distances, Distances], tolerance: float) -> float:
    """The share of both surfaces' voxels that are within `tolerance` of the other surface (Nikolov et al. 2018), 0…1."""
    return float(np.mean(np.concatenate(distances) <= tolerance))


def pieces(given: Body, truth: Body) -> tuple[int, int, int]:
    """Connected pieces (across faces, edges and corners): how many of the truth's the prediction meets in one voxel or more,
    how many it misses, and how many of the prediction's meet none."""
    ndimage = needs("scipy.ndimage", "medical")
    around = np.ones((3,) * truth.ndim)
    true, number = ndimage.label(truth, around)
    predicted, of_given = ndimage.label(given, around)
    both = given & truth
    found, right = (len(np.unique(one[both])) for one in (true, predicted))
    return found, number - found, of_given - right


def _surface(body: Body) -> Body:
    eroded: Body = needs("scipy.ndimage", "medical").binary_erosion(body)
    return body & ~eroded


def _box(body: Body) -> tuple[slice, ...]:
    """The smallest box that holds it: no surface lies outside, so that distances within it are those of the whole volume."""
    places = [
        np.flatnonzero(body.any(axis=tuple(a for a in range(body.ndim) if a != axis))) for axis in range(body.ndim)
    ]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in places)
