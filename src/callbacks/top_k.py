"""Keeps the best few checkpoints, beside `best.ckpt`: `callbacks.top_k=true`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import lightning as L
from pydantic import PositiveInt

from src.callbacks.learner import learner
from src.files.untrusted import inside
from src.metrics.names import better, direction
from src.storage import run_folder

_NAME = re.compile(r"epoch_\d{3,}\.ckpt")


class TopK(L.Callback):
    """Keeps the `k` best checkpoints by a metric as `checkpoints/top/epoch_012.ckpt`, the epoch counted from 1; of two with the
    same score the earlier one.

    Args:
        run_dir: the run folder.
        monitor: the metric, e.g. "val/miou".
        mode: whether the best is the largest or the smallest; None: as the metric says.
        k: how many.

    Attributes:
        scores: of those that are kept, by epoch.
    """

    def __init__(
        self, run_dir: str, monitor: str, mode: Literal["min", "max"] | None = None, k: PositiveInt = 3
    ) -> None:
        self._run_dir, self.k = Path(run_dir), k
        self.monitor, self.mode = monitor, direction(monitor, mode)
        self.scores: dict[int, float] = {}

    def state_dict(self) -> dict[str, object]:
        return {"epochs": list(self.scores), "scores": list(self.scores.values())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = {
            int(epoch): float(score) for epoch, score in zip(state_dict["epochs"], state_dict["scores"], strict=True)
        }

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clear(trainer)  # what a killed run kept after its last checkpoint is made again

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = learner(pl_module).results["val"].get(self.monitor.removeprefix("val/"))
        epoch = trainer.current_epoch + 1
        if score is None or not self._enters(epoch, score):
            return
        self.scores[epoch] = score
        while len(self.scores) > self.k:
            worst = (max if self.mode == "min" else min)(self.scores, key=lambda e: (self.scores[e], self._later(e)))
            del self.scores[worst]
        trainer.save_checkpoint(self._file(epoch), weights_only=False)
        self._clear(trainer)

    def _enters(self, epoch: int, score: float) -> bool:
        if epoch in self.scores:  # an epoch with several validations
            return better(score, self.scores[epoch], self.mode)
        worst = (min if self.mode == "max" else max)(self.scores.values(), default=None)
        return len(self.scores) < self.k or better(score, worst, self.mode)

    def _later(self, epoch: int) -> int:
        return epoch if self.mode == "min" else -epoch

    def _file(self, epoch: int) -> Path:
        return inside(self._run_dir, f"{run_folder.TOP}/epoch_{epoch:03}.ckpt")

    def _clear(self, trainer: L.Trainer) -> None:
        """Removes those of ours that are not among the best."""
        kept = {self._file(epoch).name for epoch in self.scores}
        folder = inside(self._run_dir, run_folder.TOP)
        if trainer.is_global_zero and folder.is_dir():
            for file in folder.iterdir():
                if _NAME.fullmatch(file.name) and file.name not in kept:
                    file.unlink()
