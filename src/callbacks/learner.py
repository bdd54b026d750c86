"""The model that a callback is called with."""

from __future__ import annotations

import lightning as L

from src.models.base import Segmenter
from src.models.learner import Learner


def learner(pl_module: L.LightningModule) -> Learner:
    """The run's model as what it is: Lightning's hooks hand on any LightningModule.

    Raises:
        TypeError: it is none of this program's.
    """
    if not isinstance(pl_module, Learner):
        raise TypeError(f"this callback is for segmenters and synthesisers, not for {type(pl_module).__name__}")
    return pl_module


def segmenter(pl_module: L.LightningModule) -> Segmenter:
    """As `learner`, of a callback that looks at predictions; raises TypeError for what predicts no classes."""
    if not isinstance(pl_module, Segmenter):
        raise TypeError(f"this callback is for segmenters, not for {type(pl_module).__name__}")
    return pl_module
