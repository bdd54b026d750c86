"""Counts of images that nobody predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.evaluation.matrices import Cells, PerImage, of_cells

NAMES = ("road", "car", "tree", "sky")


def random_truths(count: int, seed: int) -> npt.NDArray[np.int64]:
    """True pixels of each class, int64 [count, 4]; the last class is in about half of the images."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(50, 4000, (count, len(NAMES)))
    truths[rng.random(count) < 0.5, -1] = 0
    return truths


def predicted(
    truths: npt.NDArray[np.int64], seed: int, skill: float = 0.7, spread: float = 0.12, difficulty: int = 0
) -> list[npt.NDArray[np.int64]]:
    """Confusion matrices of a model that gets about `skill` of each image's pixels right.

    Args:
        seed: of the model's own luck in each image; `difficulty` is that of the images', which all models share.
    """
    luck, hard = np.random.default_rng(seed), np.random.default_rng(difficulty)
    share = np.clip(skill + hard.normal(0, 0.1, (len(truths), 1)) + luck.normal(0, spread, truths.shape), 0.02, 0.98)
    right = luck.binomial(truths, share)
    matrices = luck.multinomial(truths - right, [1 / truths.shape[1]] * truths.shape[1])
    classes = np.arange(truths.shape[1])
    matrices[:, classes, classes] += right
    return list(matrices)


def cells(matrices: Sequence[npt.NDArray[np.int64]]) -> list[Cells]:
    flat = [matrix.ravel() for matrix in matrices]
    return [Cells(np.flatnonzero(one).astype(np.int32), one[one > 0]) for one in flat]


def per_image(matrices: Sequence[npt.NDArray[np.int64]], ids: Sequence[str] | None = None) -> PerImage:
    ids = ids or [f"town{i // 3}_{i}" for i in range(len(matrices))]
    return of_cells(ids, ids, NAMES, "val", cells(matrices), {"checkpoint": "none"})
