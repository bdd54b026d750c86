"""Predictions of a fixed set of validation samples as pictures, or what is drawn by their label maps."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from src.callbacks.dashboard import newest_batch
from src.callbacks.learner import learner
from src.data.datamodule import SegmentationDataModule
from src.inference.drawing import Picture, as_picture, colored, comparison, side_by_side
from src.inference.protocol import joined
from src.inference.sizes import sized
from src.loggers.boards import boards
from src.models.base import Segmenter
from src.models.learner import Learner
from src.models.synthesis import Synthesizer
from src.seeding import derive


class Pictures(L.Callback):
    """Writes image, truth, prediction and errors of the same validation samples to every logger that holds pictures,
    and a GAN segmenter's uncertainty and its discriminator's confidence; of a synthesiser label map, what it draws, and the
    image.

    Args:
        samples: how many, evenly spread over the split.
        every_n_epochs: how often; the last epoch is always shown.
    """

    def __init__(self, samples: PositiveInt = 4, every_n_epochs: PositiveInt = 1) -> None:
        self.samples, self.every_n_epochs = samples, every_n_epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.state.fn != "fit" or not boards(trainer):
            return
        if epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        model = learner(pl_module)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, SegmentationDataModule)
        source = datamodule.source("val")
        count = min(self.samples, len(source))
        for index in np.linspace(0, len(source) - 1, count).astype(int).tolist():
            image, mask = source.read(index)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                if isinstance(model, Synthesizer):
                    picture = _drawn(model, image, mask, source.name(index))
                else:
                    assert isinstance(model, Segmenter)
                    picture = _predicted(model, image, mask)
            if not trainer.is_global_zero:
                continue  # it predicts with the others, since each may hold a part of the weights
            for board in boards(trainer):
                board.show(f"val/{source.name(index)}", picture, newest_batch(trainer))


def _predicted(model: Segmenter, image: Tensor, mask: Tensor) -> Picture:
    raw = image[None].to(model.device)
    outputs = joined(model.predicted(raw, mask.shape))
    prediction = outputs["logits"].argmax(dim=1)[0].cpu()
    maps = {
        title: sized(values[None].float(), mask.shape)[0, 0].cpu().numpy()
        for title, values in model.maps(raw, outputs).items()
    }
    return comparison(_shown(image, mask, model), mask.numpy(), prediction.numpy(), model.label_set, maps)


def _drawn(model: Synthesizer, image: Tensor, mask: Tensor, name: str) -> Picture:
    """Label map, image, the image redrawn with its own codes, and two draws with codes by lot."""
    raw, masks = image[None].to(model.device), mask[None].to(model.device)
    draws = [model.draw(masks, [derive(model.seed, "shown", name, lot)], raw.dtype)[0].cpu() for lot in range(2)]
    redrawn = model.raw(model.redrawn(raw, masks) * 2 - 1, raw.dtype)[0].cpu()
    return side_by_side(
        {
            "label map": colored(mask.numpy(), model.label_set),
            "generated": _shown(draws[0], mask, model),
            "generated again": _shown(draws[1], mask, model),
            "real": _shown(image, mask, model),
            "real, redrawn": _shown(redrawn, mask, model),
        },
        model.label_set,
    )


def _shown(image: Tensor, mask: Tensor, model: Learner) -> Picture:
    of_mask = image if image.shape[-2:] == mask.shape else sized(image[None].float(), mask.shape)[0]
    return as_picture(of_mask.numpy(), model.intensity)
