"""What each process of a run really consumed, written down as it goes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

Sample = tuple[str, str]  # a name, and a digest of the pixels: of the augmented image, so of its whole key


class Recorder(L.Callback):
    """Appends to `<folder>/<stage>-<rank>.jsonl` one line for each batch: what it is called, and its samples.

    Args:
        folder: below the run folder.
        kill_at: a global batch number; at its begin each process kills itself, as no handler could prevent.
    """

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder, self.kill_at = Path(folder), kill_at

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        number = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        if number == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        samples = [*zip(batch["id"], digests(batch["image"]), strict=True)]
        samples += [("", digest) for digest in digests(batch.get("unlabeled_image", ()))]
        self._write(f"train-{trainer.global_rank}", number, samples)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        samples = [*zip(batch["id"], digests(batch["image"]), strict=True)]
        self._write(f"val-{trainer.global_rank}", trainer.current_epoch, samples)

    def _write(self, name: str, number: int, samples: list[Sample]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps([number, samples]) + "\n")


def digests(images: Tensor | tuple[()]) -> list[str]:
    return [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=8).hexdigest() for image in images]


def consumed(folder: Path, rank: int = 0, stage: str = "train") -> list[tuple[int, list[Sample]]]:
    """Batches in the order in which a rank took them: number and samples."""
    lines = (folder / f"{stage}-{rank}.jsonl").read_text().splitlines()
    return [(number, [(name, digest) for name, digest in samples]) for number, samples in map(json.loads, lines)]
