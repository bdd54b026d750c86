"""The model that a callback is called with."""

from __future__ import annotations

import lightning as L

from src.models.base import Segmenter


def segmenter(pl_module: L.LightningModule) -> Segmenter:
    """The run's model as what it is: Lightning's hooks hand on any LightningModule.

    Raises:
        TypeError: it is no segmenter.
    """
    if not isinstance(pl_module, Segmenter):
        raise TypeError(f"this callback is for segmenters, not for {type(pl_module).__name__}")
    return pl_module
