"""The CNN segmenter: per-pixel classification."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer

from src.models.base import Segmenter


class CNNSegmenter(Segmenter):
    """Softmax over classes at every pixel, trained with a segmentation loss (Long et al. 2015)."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        loss = self.segmentation_loss(self.outputs(batch["image"]), batch["mask"])
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        self.update(loss, self.network, optimizer, batch_idx)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["image"]))
