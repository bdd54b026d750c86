"""The CNN segmenter: per-pixel classification."""

from __future__ import annotations

from src.data.samples import Batch
from src.models.base import Segmenter


class CNNSegmenter(Segmenter):
    """Softmax over classes at every pixel, trained with a segmentation loss (Long et al. 2015)."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        outputs, unlabeled = self.supervised_and_unlabeled(batch)
        loss = self.segmentation_loss(outputs, batch["mask"])
        self.figures["loss"] = loss.detach()
        loss = self.with_others(loss, outputs, batch)
        if unlabeled is not None:
            loss = loss + unlabeled
        self.update(loss, batch_idx)
