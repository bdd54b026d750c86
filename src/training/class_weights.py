"""Weights of the classes, as `model.class_weights` says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from src.config.rules import check_one_each
from src.data.sources import Source, class_counts
from src.files import untrusted
from src.storage import run_folder


def class_weights(chosen: str | list[float] | None, source: Source, keep: Path | None = None) -> torch.Tensor | None:
    """Weights of the classes, float [K], as `model.class_weights` says.

    "balanced" is median frequency balancing (Eigen and Fergus 2015) over the training masks: a class's weight is the
    median class frequency over its own. They are counted once and kept in the file `keep`.

    Raises:
        UserError: a list of another length than there are classes.
    """
    names = source.label_set.names
    if chosen is None:
        return None
    if chosen == "balanced":
        counts = _counted_before(keep, len(names))
        if counts is None:
            counts = class_counts(source)
            if keep is not None:
                lines = [f"# training pixels of: {' '.join(names)}", *map(str, counts.tolist())]
                run_folder.write_text(keep, "\n".join(lines) + "\n")
        share = np.maximum(counts, 1) / counts.sum()
        return torch.tensor(np.where(counts > 0, np.median(share[counts > 0]) / share, 0.0), dtype=torch.float32)
    check_one_each("model.class_weights", chosen, names)
    return torch.tensor(chosen, dtype=torch.float32)


def _counted_before(keep: Path | None, classes: int) -> npt.NDArray[np.int64] | None:
    """What `class_weights` has kept of a run, int64 [K]; None where it is not there or fits no such data."""
    try:
        lines = [] if keep is None else untrusted.read_text(keep).splitlines()
        counts = np.array([int(line) for line in lines if not line.startswith("#")], np.int64)
    except (FileNotFoundError, ValueError, OverflowError):
        return None
    return counts if len(counts) == classes and (counts >= 0).all() and counts.any() else None
