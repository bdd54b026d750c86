"""Predictions of a fixed set of validation samples as pictures."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import PositiveInt

from src.callbacks.dashboard import newest_batch
from src.callbacks.segmenter import segmenter
from src.data.datamodule import SegmentationDataModule
from src.inference.drawing import as_picture, comparison
from src.inference.protocol import joined
from src.inference.sizes import sized


class Pictures(L.Callback):
    """Writes image, truth, prediction and errors of the same validation samples to TensorBoard, and a GAN segmenter's
    uncertainty and its discriminator's confidence.

    Args:
        samples: how many, evenly spread over the split.
        every_n_epochs: how often; the last epoch is always shown.
    """

    def __init__(self, samples: PositiveInt = 4, every_n_epochs: PositiveInt = 1) -> None:
        self.samples, self.every_n_epochs = samples, every_n_epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.state.fn != "fit" or not isinstance(trainer.logger, TensorBoardLogger):
            return
        if epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        model = segmenter(pl_module)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, SegmentationDataModule)
        source = datamodule.source("val")
        count = min(self.samples, len(source))
        for index in np.linspace(0, len(source) - 1, count).astype(int).tolist():
            image, mask = source.read(index)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                raw = image[None].to(model.device)
                outputs = joined(model.predicted(raw, mask.shape))
                prediction = outputs["logits"].argmax(dim=1)[0].cpu()
                maps = {
                    title: sized(values[None].float(), mask.shape)[0, 0].cpu().numpy()
                    for title, values in model.maps(raw, outputs).items()
                }
                image = image if image.shape[-2:] == mask.shape else sized(image[None].float(), mask.shape)[0]
            if not trainer.is_global_zero:
                continue  # it predicts with the others, since each may hold a part of the weights
            picture = comparison(
                as_picture(image.numpy(), source.intensity), mask.numpy(), prediction.numpy(), model.label_set, maps
            )
            trainer.logger.experiment.add_image(
                f"val/{source.name(index)}", picture, global_step=newest_batch(trainer), dataformats="HWC"
            )
