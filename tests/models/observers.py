"""Callbacks for tests, which a run takes as `+callbacks.<name>._target_=tests.models.observers.<class>`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightning as L
import torch


class Fingerprint(L.Callback):
    """Writes each rank's steps and a hash of its trained weights, to compare them after the run."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        digest = hashlib.sha256()
        for _, parameter in sorted(pl_module.named_parameters()):
            digest.update(parameter.detach().numpy().tobytes())
        file = self.folder / f"rank{trainer.global_rank}.txt"
        file.write_text(f"{trainer.global_step} {digest.hexdigest()}")


class Steps(L.Callback):
    """Keeps what was logged, batch by batch."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.logged.append({key: float(value) for key, value in trainer.callback_metrics.items()})


class OutOfMemory(L.Callback):
    """Fails on one rank after the third batch."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 3:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
