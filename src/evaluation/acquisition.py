"""Which unlabelled images are worth labelling: uncertain ones that are unlike one another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def chosen(
    scores: npt.NDArray[np.floating], features: npt.NDArray[np.floating] | None, count: int, pool: int
) -> list[int]:
    """Numbers of the images to label, in the order in which they were chosen.

    Without features the most uncertain ones. With features, of the `pool * count` most uncertain ones first the most uncertain
    and then always the one that is farthest from all that were chosen: uncertain first, then unlike one another (Yang et al.
    2017, suggestive annotation), by the greedy k-centre of Sener and Savarese (2018).

    Args:
        scores: uncertainty of each image, [N].
        features: [N, D]; compared by the angle between them.
        count: how many to choose, at most N.
        pool: from how many times as many.
    """
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    if features is None or count >= len(order):
        return order[:count]
    candidates = np.asarray(order[: max(1, pool) * count])
    places = features[candidates].astype(np.float64)
    places /= np.linalg.norm(places, axis=1, keepdims=True).clip(min=1e-12)
    taken = [0]
    nearest = 1 - places @ places[0]
    while len(taken) < count:
        nearest[taken] = -np.inf
        taken.append(int(nearest.argmax()))  # of equals the more uncertain one
        nearest = np.minimum(nearest, 1 - places @ places[taken[-1]])
    return [int(candidates[at]) for at in taken]
